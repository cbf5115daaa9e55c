//! Methods that a broker sends: their short strings are made UTF-8, their tables readable, and the
//! frame size that the broker offers is bounded.

use super::scan::{Form, end_of, number, table};

/// Where the arguments of a method begin in its payload, behind class and method.
const ARGUMENTS: usize = 4;
/// `connection.tune`.
const TUNE: (usize, usize) = (10, 30);

/// What a method's arguments are, one letter each: `s` short string, `S` long string, `T` table,
/// `1` octet or a group of bits, `2` short, `4` long, `8` long long.
///
/// AMQP 0-9-1 with RabbitMQ's extensions; what only a client sends is not in it.
fn arguments(class: usize, method: usize) -> Option<&'static str> {
    Some(match (class, method) {
        // connection: start, secure, tune, open-ok, close, close-ok, blocked, unblocked,
        // update-secret-ok
        (10, 10) => "11TSS",
        (10, 20) => "S",
        TUNE => "242",
        (10, 41 | 60) => "s",
        (10, 50) => "2s22",
        (10, 51 | 61 | 71) => "",
        // channel: open-ok, flow, flow-ok, close, close-ok
        (20, 11) => "S",
        (20, 20 | 21) => "1",
        (20, 40) => "2s22",
        (20, 41) => "",
        // access: request-ok
        (30, 11) => "2",
        // exchange: declare-ok, delete-ok, bind-ok, unbind-ok
        (40, 11 | 21 | 31 | 51) => "",
        // queue: declare-ok, bind-ok, purge-ok, delete-ok, unbind-ok
        (50, 11) => "s44",
        (50, 21 | 51) => "",
        (50, 31 | 41) => "4",
        // basic: qos-ok, consume-ok, cancel, cancel-ok, return, deliver, get-ok, get-empty, ack,
        // recover-ok, nack
        (60, 11 | 111) => "",
        (60, 21 | 31 | 72) => "s",
        (60, 30) => "s1",
        (60, 50) => "2sss",
        (60, 60) => "s81ss",
        (60, 71) => "81ss4",
        (60, 80 | 120) => "81",
        // tx: select-ok, commit-ok, rollback-ok. confirm: select-ok
        (90, 11 | 21 | 31) | (85, 11) => "",
        _ => return None,
    })
}

/// Whether content follows a method: return, deliver, get-ok.
pub(super) fn carries_content(payload: &[u8]) -> bool {
    let id = (number(payload, 0, 2), number(payload, 2, 2));
    matches!(id, (Some(60), Some(50 | 60 | 71)))
}

/// What became of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mended {
    /// It can be read, as it is or now.
    Readable,
    /// The same; the broker offered a frame size, and this one is agreed on.
    Tuned(usize),
    /// No method of a broker, or one without its end.
    Unreadable,
}

/// Makes the payload of a method frame readable. `ceiling` is the largest frame that is taken.
pub(super) fn mend(payload: &mut Vec<u8>, ceiling: usize) -> Mended {
    let id = (number(payload, 0, 2), number(payload, 2, 2));
    let (Some(class), Some(method)) = id else {
        return Mended::Unreadable;
    };
    let Some(arguments) = arguments(class, method) else {
        return Mended::Unreadable;
    };
    let mut at = ARGUMENTS;
    for argument in arguments.bytes() {
        match argument_end(payload, at, argument) {
            Some(end) => at = end,
            None => return Mended::Unreadable,
        }
    }
    // The library takes a method with more behind it for no method at all.
    payload.truncate(at);
    if (class, method) == TUNE {
        return Mended::Tuned(tune(payload, ceiling));
    }
    Mended::Readable
}

/// End of an argument, which is made readable.
fn argument_end(payload: &mut Vec<u8>, at: usize, argument: u8) -> Option<usize> {
    let fixed = |count: usize| at.checked_add(count).filter(|end| *end <= payload.len());
    match argument {
        b's' => {
            let end = end_of(payload, at, Form::Short)?;
            to_utf8(&mut payload[at + 1..end]);
            Some(end)
        }
        // As long as a table: a length of four bytes and so many more.
        b'S' => end_of(payload, at, Form::Table),
        b'T' => {
            let end = end_of(payload, at, Form::Table)?;
            if table(payload, at).is_ok() {
                return Some(end);
            }
            payload.splice(at..end, [0; 4]);
            Some(at + 4)
        }
        digit => fixed(usize::from(digit - b'0')),
    }
}

/// Puts a question mark in the place of every byte that makes a text no UTF-8.
fn to_utf8(mut text: &mut [u8]) {
    while let Err(wrong) = std::str::from_utf8(text) {
        let from = wrong.valid_up_to();
        let count = wrong.error_len().unwrap_or(text.len() - from);
        text[from..from + count].fill(b'?');
        text = &mut text[from + count..];
    }
}

/// Bounds the frame size that a broker offers; 0 offers any. Returns the one agreed on.
///
/// The library takes what is offered and keeps 64 frames of memory for each connection.
fn tune(payload: &mut [u8], ceiling: usize) -> usize {
    const FRAME_MAX: usize = ARGUMENTS + 2;
    let offered = number(payload, FRAME_MAX, 4).unwrap_or(0);
    let agreed = match offered {
        0 => ceiling,
        offered => offered.min(ceiling),
    };
    let digits = u32::try_from(agreed).unwrap_or(u32::MAX).to_be_bytes();
    payload[FRAME_MAX..FRAME_MAX + 4].copy_from_slice(&digits);
    agreed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(class: u16, method: u16, arguments: &[&[u8]]) -> Vec<u8> {
        let mut payload = [class.to_be_bytes(), method.to_be_bytes()].concat();
        payload.extend(arguments.concat());
        payload
    }

    #[test]
    fn short_strings_keep_their_length_and_lose_what_is_not_utf8() {
        let tag: &[u8] = b"\x03abc";
        let deliver = |exchange: &[u8], key: &[u8]| {
            method(60, 60, &[tag, &[0, 0, 0, 0, 0, 0, 0, 9, 1], exchange, key])
        };
        let mut payload = deliver(b"\x05\xc3\xa9\xff\xfea", b"\x02\xc3\xa9");
        assert_eq!(mend(&mut payload, 4096), Mended::Readable);
        assert_eq!(payload, deliver(b"\x05\xc3\xa9??a", b"\x02\xc3\xa9"));
        // A character that is cut off by the end.
        let mut payload = deliver(b"\x01\xc3", b"\x03\xe2\x82\xac");
        assert_eq!(mend(&mut payload, 4096), Mended::Readable);
        assert_eq!(payload, deliver(b"\x01?", b"\x03\xe2\x82\xac"));
    }

    #[test]
    fn what_is_behind_a_method_is_cut_and_what_is_none_is_found() {
        let mut payload = method(60, 21, &[b"\x01a", b"more"]);
        assert_eq!(mend(&mut payload, 4096), Mended::Readable);
        assert_eq!(payload, method(60, 21, &[b"\x01a"]));
        let none = [
            method(60, 21, &[b"\x05a"]),
            method(60, 40, &[b""]),
            method(61, 21, &[b"\x01a"]),
            method(10, 30, &[&[0, 0, 0]]),
            vec![0, 60, 0],
        ];
        for mut payload in none {
            assert_eq!(mend(&mut payload, 4096), Mended::Unreadable, "{payload:?}");
        }
    }

    #[test]
    fn a_table_that_cannot_be_read_is_emptied() {
        let rest: &[u8] = b"\0\0\0\x05PLAIN\0\0\0\x05en_US";
        let wrong: &[u8] = b"\0\0\0\x03\x01\xffV";
        let mut payload = method(10, 10, &[&[0, 9], wrong, rest]);
        assert_eq!(mend(&mut payload, 4096), Mended::Readable);
        assert_eq!(payload, method(10, 10, &[&[0, 9], &[0, 0, 0, 0], rest]));
    }

    #[test]
    fn the_offered_frame_size_is_bounded_and_a_lower_one_stays() {
        const CEILING: usize = 131_072;
        let tune = |frame: u32| method(10, 30, &[&[7, 255], &frame.to_be_bytes(), &[0, 60]]);
        for (offered, agreed) in [
            (0, 131_072),
            (16 << 20, 131_072),
            (u32::MAX, 131_072),
            (131_072, 131_072),
            (8_192, 8_192),
        ] {
            let mut payload = tune(offered);
            assert_eq!(
                mend(&mut payload, CEILING),
                Mended::Tuned(usize::try_from(agreed).unwrap())
            );
            assert_eq!(payload, tune(agreed));
        }
    }
}
