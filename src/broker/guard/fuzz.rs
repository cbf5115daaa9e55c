//! For fuzzing: bytes in pieces through the guard, and the library's parser behind it.

use amq_protocol::frame::{AMQPFrame, parse_frame};
use lapin::BasicProperties;

use super::screen::{BadFrame, Finding, Screen};
use super::{FRAME_MAX, mark_of};

/// Largest frame that is agreed to.
const CEILING: usize = FRAME_MAX as usize;

/// What the guard made of some bytes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Through {
    pub(super) bytes: Vec<u8>,
    pub(super) findings: Vec<Finding>,
    pub(super) bad: Option<BadFrame>,
}

/// Bytes through a guard of their own, `piece` of them at a time, into `room` bytes at a time.
pub(super) fn through(data: &[u8], piece: usize, room: usize) -> Through {
    through_screen(Screen::new(CEILING, |_| true), data, piece, room)
}

/// The same with a guard that was made by the caller.
pub(super) fn through_screen(
    mut screen: Screen,
    data: &[u8],
    piece: usize,
    room: usize,
) -> Through {
    let mut through = Through::default();
    let mut output = vec![0; room];
    for mut input in data.chunks(piece) {
        loop {
            let (taken, given) = match screen.run(input, &mut output) {
                Ok(done) => done,
                Err(bad) => {
                    through.bad = Some(bad);
                    return through;
                }
            };
            input = &input[taken..];
            through.bytes.extend_from_slice(&output[..given]);
            let finding = screen.finding();
            let idle = finding.is_none() && given == 0;
            through.findings.extend(finding);
            if idle {
                break;
            }
        }
    }
    through
}

/// The frames that the library reads. It must read all of them; the last one may be cut off.
pub(super) fn frames(mut bytes: &[u8]) -> (Vec<AMQPFrame>, &[u8]) {
    let mut frames = Vec::new();
    loop {
        match parse_frame(bytes) {
            Ok((rest, frame)) => {
                frames.push(frame);
                bytes = rest;
            }
            Err(error) => {
                assert!(error.is_incomplete(), "{error}: {bytes:02x?}");
                return (frames, bytes);
            }
        }
    }
}

/// A frame on channel 1.
pub(super) fn framed(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let head = [&[kind, 0, 1][..], &size.to_be_bytes()].concat();
    [&head, payload, &[206]].concat()
}

fn marked(properties: &BasicProperties) -> bool {
    let headers = properties.headers().as_ref();
    headers.is_some_and(|headers| mark_of(headers).is_some())
}

/// The first byte says how large the pieces are, the rest comes once as it is, and once as the
/// payload of a method and of a content header.
pub(crate) fn amqp(data: &[u8]) {
    let Some((piece, data)) = data.split_first() else {
        return;
    };
    let piece = usize::from(*piece).max(1);
    let raw = through(data, piece, 97);
    frames(&raw.bytes);
    for kind in [1, 2] {
        let through = through(&framed(kind, data), piece, 97);
        assert_eq!(through.bad, None, "it is framed well");
        let (frames, rest) = frames(&through.bytes);
        assert!(rest.is_empty());
        match &frames[..] {
            [] => assert!(matches!(through.findings[..], [Finding::LeftOut(..)])),
            [AMQPFrame::Method(1, _)] => assert_eq!(through.findings, []),
            [AMQPFrame::Header(1, header)] => {
                // The mark stands there where the guard put it, and only there.
                let replaced = !through.findings.is_empty();
                assert_eq!(marked(&header.properties), replaced);
                if let Some(size) = data.get(4..12).and_then(|size| size.try_into().ok()) {
                    assert_eq!(header.body_size, u64::from_be_bytes(size));
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
