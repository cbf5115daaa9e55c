use std::collections::VecDeque;

use amq_protocol::frame::AMQPFrame;
use futures::AsyncReadExt as _;
use lapin::BasicProperties;
use proptest::prelude::*;

use super::fuzz::{Through, framed, frames, through, through_screen};
use super::scan::{Flaw, MARK, What};
use super::screen::MIN_FRAME;
use super::*;

/// A short string.
fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

/// A length of four bytes, and so many more.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// An entry of a table.
fn entry(key: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(key), &[kind][..], value].concat()
}

/// The payload of a content header with a body of nine bytes.
fn header(flags: u16, properties: &[&[u8]]) -> Vec<u8> {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    payload.extend(flags.to_be_bytes());
    payload.extend(properties.concat());
    payload
}

const HEADERS: u16 = 1 << 13;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const MESSAGE_ID: u16 = 1 << 7;
const TYPE: u16 = 1 << 5;

/// A table with a table in it with a table in it, `depth` in all.
fn nested(depth: usize, kind: u8) -> Vec<u8> {
    (1..depth).fold(long(b""), |inner, _| match kind {
        b'F' => long(&entry(b"a", b'F', &inner)),
        // The outermost is always a table.
        _ => long(&[&[kind], &inner[..]].concat()),
    })
}

/// What the library reads where this is the payload of a content header.
fn read(payload: &[u8]) -> (BasicProperties, Option<Unreadable>) {
    let through = through(&framed(2, payload), 1024, 1024);
    let (frames, rest) = frames(&through.bytes);
    assert!(rest.is_empty() && through.bad.is_none());
    let [AMQPFrame::Header(1, header)] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert_eq!((header.class_id, header.body_size), (60, 9));
    let headers = header.properties.headers().clone().unwrap_or_default();
    let mark = mark_of(&headers);
    assert_eq!(mark.is_some(), !through.findings.is_empty());
    (header.properties.clone(), mark)
}

fn text(value: &Option<lapin::types::ShortString>) -> Option<&str> {
    value.as_ref().map(|text| text.as_str())
}

#[test]
fn what_can_be_read_goes_through_as_it_is() {
    let mut fields = Vec::new();
    let values: [(u8, &[u8]); 18] = [
        (b't', &[2]),
        (b'b', &[255]),
        (b'B', &[255]),
        (b's', &[255, 1]),
        (b'U', &[255, 1]),
        (b'u', &[255, 1]),
        (b'I', &[1; 4]),
        (b'i', &[1; 4]),
        (b'L', &[1; 8]),
        (b'l', &[1; 8]),
        (b'f', &[1; 4]),
        (b'd', &[1; 8]),
        (b'D', &[1; 5]),
        // A long string is bytes.
        (b'S', b"\0\0\0\x02\xff\xfe"),
        (b'x', b"\0\0\0\x02\xff\xfe"),
        (b'T', &[1; 8]),
        (b'V', b""),
        (b'A', b"\0\0\0\x03I\0\0"),
    ];
    for (kind, value) in &values[..17] {
        fields.extend(entry(&[b'k', *kind], *kind, value));
    }
    fields.extend(entry("schlüssel".as_bytes(), b'A', &long(b"VVt\x01")));
    let headers = long(&fields);
    let payload = header(
        0xffff,
        &[
            b"\x02ct",
            b"\0",
            &headers,
            &[2, 9],
            b"\x02ci",
            b"\x02rt",
            b"\x01e",
            b"\x01m",
            &[0, 0, 0, 0, 0, 0, 0, 7],
            b"\x01t",
            b"\x01u",
            b"\x01a",
            b"\x01c",
        ],
    );
    let frame = framed(2, &payload);
    let through = through(&frame, 3, 5);
    assert_eq!((through.bytes, &through.findings[..]), (frame, &[][..]));
    let (properties, mark) = read(&payload);
    assert_eq!(
        (properties.headers().as_ref().unwrap().inner().len(), mark),
        (18, None)
    );
    // The last of the values ends within a number.
    let (kind, value) = values[17];
    let cut = long(&entry(b"k", kind, value));
    assert!(read(&header(HEADERS, &[&cut])).1.is_some());
}

#[test]
fn a_property_that_is_not_utf8_is_left_out_and_the_others_stay() {
    let id: &[u8] = b"\x10\x93\xc9\x1f\x00\x7f\xff\xfe\x01\x02\x03\x04\x05\x06\x07\x08\x09";
    let hops = long(&entry(b"x-received-from", b'A', &long(b"V")));
    let flags = HEADERS | CORRELATION_ID | REPLY_TO | MESSAGE_ID | TYPE;
    let payload = header(
        flags,
        &[&hops, id, b"\x01q", b"\x02m1", b"\x0bGetState#1\xc3"],
    );
    let (properties, mark) = read(&payload);
    let mark = mark.unwrap();
    assert_eq!(mark.detail, "property correlation_id is not UTF-8");
    assert!(mark.evidence.starts_with("1093c91f007f"), "{mark:?}");
    assert_eq!(text(properties.reply_to()), Some("q"));
    assert_eq!(text(properties.message_id()), Some("m1"));
    assert_eq!(text(properties.correlation_id()), None);
    assert_eq!(text(properties.kind()), None);
    let headers = properties.headers().clone().unwrap();
    assert!(headers.contains_key("x-received-from"), "{headers:?}");
}

#[test]
fn what_is_wrong_in_the_headers_is_left_out_and_named() {
    let good = entry(b"x-attempt", b'b', &[2]);
    let deep = entry(b"deep", b'F', &nested(3_000, b'F'));
    let lists = entry(b"deep", b'A', &nested(3_000, b'A'));
    let inner = entry(b"in", b'F', &long(&entry(b"\xff", b'V', b"")));
    let cases: [(Vec<u8>, &str); 7] = [
        (
            entry(b"k\xff", b'V', b""),
            "the name of a header is not UTF-8",
        ),
        (inner, "the name of a header is not UTF-8"),
        (deep, "tables in headers nest deeper than 32 levels"),
        (lists, "tables in headers nest deeper than 32 levels"),
        (
            entry(b"k", b'?', b"12"),
            "a field in headers has a type that AMQP does not know",
        ),
        (
            entry(b"k", b'F', &[0, 0, 0, 9]),
            "the sizes within headers do not fit each other",
        ),
        (
            entry(b"k", b'A', &long(b"S\0\0\0\x09")),
            "the sizes within headers do not fit each other",
        ),
    ];
    for (wrong, words) in cases {
        let headers = long(&[&good[..], &wrong].concat());
        let (properties, mark) = read(&header(HEADERS | MESSAGE_ID, &[&headers, b"\x01m"]));
        let mark = mark.unwrap();
        assert_eq!(mark.detail, words);
        assert!(mark.evidence.len() <= 128 && !mark.evidence.is_empty());
        let headers = properties.headers().clone().unwrap();
        assert_eq!(
            headers.inner().get("x-attempt"),
            Some(&AMQPValue::ShortShortInt(2))
        );
        assert_eq!(headers.inner().len(), 2, "{headers:?}");
        assert_eq!(text(properties.message_id()), Some("m"), "{words}");
    }
}

#[test]
fn depth_is_counted_with_the_header_table() {
    for (depth, sound) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false)] {
        let (_, mark) = read(&header(HEADERS, &[&nested(depth, b'F')]));
        assert_eq!(mark.is_none(), sound, "{depth}");
    }
}

#[test]
fn the_library_reads_the_deepest_tables_on_a_small_stack() {
    let reads = std::thread::Builder::new().stack_size(1024 * 1024);
    let reads = reads.spawn(|| {
        read(&header(HEADERS, &[&nested(MAX_DEPTH, b'F')]))
            .1
            .is_none()
            && read(&header(HEADERS, &[&nested(9_000, b'F')])).1.is_some()
    });
    assert!(reads.unwrap().join().unwrap());
}

#[test]
fn a_header_without_its_end_or_with_more_is_replaced() {
    let whole = header(MESSAGE_ID | TYPE, &[b"\x02m1", b"\x01t"]);
    for length in 12..whole.len() {
        let (properties, mark) = read(&whole[..length]);
        assert!(mark.is_some(), "{length}");
        let kept = text(properties.message_id());
        assert_eq!(kept, (length >= 17).then_some("m1"), "{length}");
    }
    let (_, mark) = read(&[&whole[..], b"more"].concat());
    let words = "the sizes within the content header do not fit each other";
    assert_eq!(mark.unwrap().detail, words);
}

#[test]
fn nobody_but_the_guard_makes_the_mark() {
    let mark = |value: &[u8]| entry(MARK.as_bytes(), b'S', &long(value));
    let forged = [mark(b"a\nff"), entry(b"n", b'I', &[1; 4]), mark(b"b")].concat();
    let (properties, found) = read(&header(HEADERS, &[&long(&forged)]));
    assert_eq!(found, None);
    let headers = properties.headers().clone().unwrap();
    assert!(headers.contains_key("_-tandem-unreadable") && headers.contains_key("n"));
    // Beside something that cannot be read it is not taken over either.
    let forged = [mark(b"a\nff"), entry(b"\xff", b'V', b""), mark(b"b")].concat();
    let (_, found) = read(&header(HEADERS, &[&long(&forged)]));
    assert_eq!(found.unwrap().detail, "the name of a header is not UTF-8");
}

#[test]
fn a_replaced_header_is_no_larger_than_agreed() {
    let room = MIN_FRAME - 8;
    let wrong = entry(b"\xff", b'V', b"");
    let filler = |count: usize| entry(b"f", b'S', &long(&vec![b'x'; count]));
    for spare in 0..40 {
        let shorts: Vec<u8> = (0..9).flat_map(|_| short(&[b's'; 255])).collect();
        let rest = [&[2, 9][..], &shorts[..768], &[1; 8], &shorts[768..]].concat();
        let fixed = header(0, &[&rest]).len() + 2 * 257 + 4 + wrong.len() + 7;
        let fields = [filler(room - fixed - spare), wrong.clone()].concat();
        let two = [short(&[b'c'; 256 - 1]), short(&[b'e'; 255])].concat();
        let payload = header(0xfffc, &[&two, &long(&fields), &rest]);
        assert!(payload.len() + 8 <= MIN_FRAME + 1, "{}", payload.len());
        let frame = framed(2, &payload[..payload.len().min(room)]);
        let Through {
            bytes,
            bad,
            findings,
        } = through_screen(Screen::new(0, |_| true), &frame, 4096, 4096);
        assert_eq!((bad, findings.len()), (None, 1));
        assert!(bytes.len() <= MIN_FRAME, "{}", bytes.len());
        assert_eq!(frames(&bytes).0.len(), 1);
    }
}

#[test]
fn what_is_no_frame_ends_the_connection_with_words() {
    let whole = framed(8, b"");
    let wrong_end = [&framed(3, b"body")[..11], b"\0"].concat();
    let held = [&framed(1, b"body")[..11], b"\0"].concat();
    let large = [3, 0, 1, 0, 2, 0, 0];
    for (bytes, bad) in [
        (b"HTTP/1.1 400 Bad Request".to_vec(), BadFrame::Type),
        (vec![0; 7], BadFrame::Type),
        (wrong_end, BadFrame::End),
        (held, BadFrame::End),
        (large.to_vec(), BadFrame::Size),
    ] {
        for piece in [1, 64] {
            let through = through(&[&whole[..], &bytes].concat(), piece, 64);
            assert_eq!(through.bad, Some(bad), "{bytes:?}");
        }
    }
    let error = lapin::Error::from(io::Error::new(io::ErrorKind::InvalidData, BadFrame::Type));
    assert!(is_garbled(&error));
    let other = io::Error::new(io::ErrorKind::InvalidData, "a certificate");
    assert!(!is_garbled(&lapin::Error::from(other)));
}

#[test]
fn a_broker_of_another_version_is_understood() {
    let through = through(b"AMQP\0\x01\x00\x00", 3, 64);
    assert_eq!(through.bytes, b"AMQP\0\x01\x00\x00");
    assert!(matches!(
        frames(&through.bytes).0[..],
        [AMQPFrame::ProtocolHeader(_)]
    ));
}

#[test]
fn content_goes_with_a_method_that_is_left_out() {
    let tag = [&short(b"tag")[..], &[0; 9]].concat();
    let deliver = framed(1, &[&[0, 60, 0, 60], &tag[..], b"\0\0"].concat());
    let broken = framed(1, &[&[0, 60, 0, 60], &tag[..]].concat());
    let content = [framed(2, &header(0, &[])), framed(3, b"nine more")].concat();
    let bytes = [&broken[..], &content, &deliver, &content].concat();
    let left = through(&bytes, 7, 64);
    assert_eq!(left.bytes, [&deliver[..], &content].concat());
    assert_eq!(left.findings, [Finding::LeftOut(60, 60)]);
    // A content header that does not even tell the size of its body.
    let headless = [framed(2, &[0, 60, 0]), framed(3, b"body")].concat();
    let bytes = [&deliver[..], &headless, &deliver, &content].concat();
    let left = through(&bytes, 7, 64);
    let (frames, _) = frames(&left.bytes);
    let sizes: Vec<u64> = frames
        .iter()
        .filter_map(|frame| match frame {
            AMQPFrame::Header(_, header) => Some(header.body_size),
            _ => None,
        })
        .collect();
    assert_eq!((frames.len(), &sizes[..]), (5, &[0, 9][..]));
}

#[test]
fn what_the_library_alone_refuses_is_replaced_too() {
    let deliver = framed(1, &[&[0, 60, 0, 60][..], &[0; 13]].concat());
    let reads: fn(&[u8]) -> bool = |frame| amq_protocol::frame::parse_frame(frame).is_ok();
    let wrong = framed(2, &header(TYPE, &[b"\x01\xff"]));
    let blind = Screen::new(0, reads).blind();
    let through = through_screen(blind, &[&deliver[..], &wrong].concat(), 9, 9);
    assert_eq!(
        (frames(&through.bytes).0.len(), through.findings.len()),
        (2, 1)
    );
    let fine = framed(2, &header(TYPE, &[b"\x01t"]));
    let methods_only = Screen::new(0, |frame| frame[0] == 1);
    let through = through_screen(methods_only, &[deliver, fine].concat(), 9, 9);
    let (frames, _) = frames(&through.bytes);
    let [AMQPFrame::Method(..), AMQPFrame::Header(_, header)] = &frames[..] else {
        panic!("{frames:?}");
    };
    let mark = mark_of(header.properties.headers().as_ref().unwrap()).unwrap();
    let words = Flaw {
        what: What::Library,
        property: "",
        at: 0,
    };
    assert_eq!(mark.detail, words.words());
    assert_eq!(header.properties.kind(), &None);
}

/// A large frame leaves no memory behind, and none is held for a body.
#[test]
fn memory_is_bounded_by_one_frame() {
    let mut screen = Screen::new(usize::try_from(FRAME_MAX).unwrap(), |_| true);
    let filler = entry(b"f", b'S', &long(&vec![b'x'; 100_000]));
    let large = framed(2, &header(HEADERS, &[&long(&filler)]));
    let body = framed(3, &vec![0; 120_000]);
    let mut output = vec![0; 4096];
    let mut most = 0;
    for _ in 0..20 {
        for frame in [&large, &body] {
            let mut input = &frame[..];
            while !input.is_empty() {
                let (taken, _) = screen.run(input, &mut output).unwrap();
                most = most.max(screen.held());
                input = &input[taken..];
            }
        }
        while screen.run(&[], &mut output).unwrap().1 > 0 {}
        assert!(screen.held() <= 64 * 1024, "{}", screen.held());
    }
    assert!(most <= 3 * usize::try_from(FRAME_MAX).unwrap(), "{most}");
}

/// A transport that gives its pieces one by one, and is not ready between them.
struct Pieces(VecDeque<Vec<u8>>, bool);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = self.0.pop_front().unwrap_or_default();
        output[..piece.len()].copy_from_slice(&piece);
        Poll::Ready(Ok(piece.len()))
    }
}

/// Some of everything: methods, content headers that can be read or not, bodies, heartbeats.
fn traffic() -> Vec<u8> {
    let tag = [&short(b"tag")[..], &[0; 9]].concat();
    let deliver = |key: &[u8]| framed(1, &[&[0, 60, 0, 60], &tag[..], b"\0", &short(key)].concat());
    let deep = long(&entry(b"deep", b'F', &nested(40, b'F')));
    let tune: &[u8] = &[0, 10, 0, 30, 7, 255, 0, 0, 0, 0, 0, 60];
    [
        framed(1, tune),
        framed(8, b""),
        deliver(b"Connector1"),
        framed(2, &header(TYPE, &[b"\x01t"])),
        framed(3, b"body"),
        deliver(b"key\xff"),
        framed(2, &header(HEADERS, &[&deep])),
        framed(3, b"nine more"),
        framed(1, &[0, 61, 0, 60]),
        deliver(b""),
        framed(
            2,
            &header(CORRELATION_ID | TYPE, &[b"\x02\xff\xff", b"\x01t"]),
        ),
        framed(3, b""),
    ]
    .concat()
}

proptest! {
    #[test]
    fn pieces_of_any_size_make_no_difference(
        cuts in proptest::collection::vec(1_usize..40, 0..200),
        room in 1_usize..64,
    ) {
        let bytes = traffic();
        let whole = through(&bytes, bytes.len(), 4096);
        prop_assert_eq!(whole.bad, None);
        let mut rest = &bytes[..];
        let mut pieces = VecDeque::new();
        for cut in cuts {
            let (piece, more) = rest.split_at(cut.min(rest.len()));
            pieces.push_back(piece.to_vec());
            rest = more;
        }
        pieces.push_back(rest.to_vec());
        pieces.retain(|piece| !piece.is_empty());
        let mut guard = Guard::new(Pieces(pieces, false), FRAME_MAX);
        let mut got = Vec::new();
        let mut output = vec![0; room];
        futures::executor::block_on(async {
            loop {
                match guard.read(&mut output).await.unwrap() {
                    0 => return,
                    count => got.extend_from_slice(&output[..count]),
                }
            }
        });
        prop_assert_eq!(got, whole.bytes);
    }

    #[test]
    fn any_content_header_becomes_one_that_the_library_reads(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        super::fuzz::amqp(&payload);
    }
}
