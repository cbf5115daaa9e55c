//! A content header that the library can read, in the place of one that it cannot.
//!
//! What can be read of the properties is kept: where an answer goes, which hops a message came
//! over. The mark says that something was left out, and shows the bytes.

use std::fmt::Write as _;

use super::scan::{
    BASIC, Entry, FLAGS, Flaw, Form, MARK, PROPERTIES, What, end_of, entries, number, part,
};

/// Bytes of the original that the mark shows, from the one that cannot be read on.
pub(super) const EVIDENCE: usize = 64;
/// Room for what stands behind the headers: nine short strings and eleven bytes.
const BEHIND: usize = 9 * 256 + 11;
/// Place of the headers among the properties.
const HEADERS: usize = 2;

/// Writes to `out` what replaces the payload of a content header. It is at most `limit` bytes
/// long, which must hold at least all short strings and the mark (8,192 do).
pub(super) fn content_header(payload: &[u8], flaw: &Flaw, limit: usize, out: &mut Vec<u8>) {
    out.clear();
    // Class, weight and body size; of a payload without them, those of an empty body.
    match part(payload, 0, FLAGS) {
        Some(head) => out.extend_from_slice(head),
        None => out.extend_from_slice(&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    }
    out.extend_from_slice(&[0, 0]);
    // Where our checks find nothing, nothing can be told from what the library cannot read.
    let flags = match flaw.what {
        What::Library => 0,
        _ => number(payload, FLAGS, 2).unwrap_or(0),
    };
    let (mut kept, mut at) = (0_u16, Some(PROPERTIES));
    for (index, (_, form)) in BASIC.into_iter().enumerate() {
        let bit = 1_u16 << (15 - index);
        let announced = flags & usize::from(bit) != 0;
        let from = at.filter(|_| announced);
        let end = from.and_then(|from| end_of(payload, from, form));
        if announced {
            // Behind one without its end nothing can be found.
            at = end;
        }
        if index == HEADERS {
            headers(payload, from, flaw, limit, out);
            kept |= bit;
            continue;
        }
        if let (Some(from), Some(end)) = (from, end)
            && (form != Form::Short || std::str::from_utf8(&payload[from + 1..end]).is_ok())
        {
            out.extend_from_slice(&payload[from..end]);
            kept |= bit;
        }
    }
    out[FLAGS..PROPERTIES].copy_from_slice(&kept.to_be_bytes());
}

/// The mark, and those entries of the header table at `from` that can be read.
fn headers(payload: &[u8], from: Option<usize>, flaw: &Flaw, limit: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    mark(payload, flaw, out);
    if let Some(from) = from {
        let room = limit.saturating_sub(BEHIND);
        let mut keep = |entry: &Entry| {
            let bytes = &payload[entry.at..entry.end];
            if entry.key(payload) != MARK.as_bytes()
                && entry.check(payload).is_ok()
                && out.len() + bytes.len() <= room
            {
                out.extend_from_slice(bytes);
            }
            Ok(())
        };
        // It ends at the entry whose extent cannot be told.
        let _ = entries(payload, from, &mut keep);
    }
    let length = out.len() - start - 4;
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// One entry: what is wrong, a line's end, and the bytes in hexadecimal figures.
fn mark(payload: &[u8], flaw: &Flaw, out: &mut Vec<u8>) {
    let mut text = flaw.words();
    text.push('\n');
    let from = flaw.at.min(payload.len());
    let evidence = payload.iter().skip(from).take(EVIDENCE);
    for byte in evidence {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    out.push(u8::try_from(MARK.len()).unwrap_or(0));
    out.extend_from_slice(MARK.as_bytes());
    out.push(b'S');
    let length = u32::try_from(text.len()).unwrap_or(0);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Renames every key of the header table at `at` that only the mark may have.
pub(super) fn disarm(payload: &mut [u8], at: usize) {
    let Some(end) = end_of(payload, at, Form::Table) else {
        return;
    };
    let mut at = at + 4;
    while let Ok(entry) = Entry::at(payload, at, end) {
        if entry.key(payload) == MARK.as_bytes() {
            payload[entry.at + 1] = b'_';
        }
        at = entry.end;
    }
}
