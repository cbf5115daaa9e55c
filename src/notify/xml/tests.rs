//! Tokens, whole and in pieces.

use proptest::prelude::*;

use super::*;

/// The tokens of a text that comes in pieces of `size` bytes, as they would be printed.
fn tokens(text: &str, size: usize) -> Result<Vec<String>, Fault> {
    let (mut lexer, mut seen) = (Lexer::default(), Vec::new());
    for end in (size..text.len()).step_by(size).chain([text.len()]) {
        let unit = &text.as_bytes()[..end];
        while let Some(token) = lexer.next(unit)? {
            let text = |span: Span| String::from_utf8_lossy(span.of(unit)).into_owned();
            let depth = lexer.depth();
            seen.push(match token {
                Token::Open {
                    tag, empty: false, ..
                } => format!("{depth} <{}>", text(tag)),
                Token::Open { tag, .. } => format!("{depth} <{}/>", text(tag)),
                Token::Close(whole) => format!("{depth} {}", text(whole)),
                Token::Text(span) => format!("{depth} {:?}", text(span)),
                Token::Cdata(span) => format!("{depth} cdata {:?}", text(span)),
            });
        }
    }
    Ok(seen)
}

#[test]
fn quotes_cdata_and_empty_elements_are_told_apart() {
    let text = "<?xml version='1.0'?><s to='a>b' from=\"c'/>\"><m x='/'><b><![CDATA[</b>]] ]>]]]></b>\
                <c /> &lt; </m ></s>";
    let expected = [
        "1 <s to='a>b' from=\"c'/>\">",
        "2 <m x='/'>",
        "3 <b>",
        "3 cdata \"</b>]] ]>]\"",
        "2 </b>",
        "2 <c />",
        "2 \" &lt; \"",
        "1 </m >",
        "0 </s>",
    ];
    for size in 1..text.len() {
        assert_eq!(tokens(text, size).unwrap(), expected, "pieces of {size}");
    }
}

#[test]
fn what_a_stream_must_not_hold_is_refused_as_soon_as_it_shows() {
    for (text, fault) in [
        ("<s><m><!--", Fault::Restricted),
        ("<s><m><!D", Fault::Restricted),
        ("<!DOCTYPE a [<!ENTITY", Fault::Restricted),
        ("<s><![CDATA[", Fault::Restricted),
        ("<s><?", Fault::Restricted),
        ("<?php", Fault::Restricted),
        ("<s> <?xml version='1.0'?>", Fault::Restricted),
        (
            "<?xml version='1.0'?><?xml version='1.0'?>",
            Fault::Restricted,
        ),
        ("</s>", Fault::Malformed),
        ("<s><a></b>", Fault::Malformed),
        ("<s></t>", Fault::Malformed),
        ("<s><a b='<'>", Fault::Malformed),
        ("<s><a <b>", Fault::Malformed),
        ("<s><1>", Fault::Malformed),
        ("<s>< a>", Fault::Malformed),
        ("<s><>", Fault::Malformed),
        ("<s><a/b>", Fault::Malformed),
    ] {
        for size in 1..=text.len() {
            assert_eq!(tokens(text, size), Err(fault), "{text} in pieces of {size}");
        }
    }
}

#[test]
fn deep_nesting_is_stopped() {
    let deep = |n: usize| tokens(&"<a>".repeat(n), 7);
    assert_eq!(deep(MAX_DEPTH).unwrap().len(), MAX_DEPTH);
    assert_eq!(deep(MAX_DEPTH + 1), Err(Fault::Limit));
}

#[test]
fn nothing_without_end_is_waited_for() {
    let much = "x".repeat(MAX_STANZA);
    for text in [
        format!("<s a='{much}"),
        format!("<s{much}"),
        format!("<s><m>{much}"),
        format!("<s><m>{much}<a>"),
        format!("<s><m><![CDATA[{much}"),
        format!("<s><m></m{much}"),
        format!("<?xml {much}"),
    ] {
        assert_eq!(tokens(&text, 16_000), Err(Fault::Limit), "{}", &text[..16]);
    }
}

proptest! {
    #[test]
    fn cuts_make_no_difference(text in "(<[a-c]{1,2}( x=['\"][>/ ]['\"])?/?>|</[a-c]{1,2}>|<!\\[CDATA\\[|\\]\\]>|[<>/a'\"!\\[\\]? ]){0,30}") {
        // The text may stand in a stream or before one.
        for text in [text.clone(), format!("<s><m>{text}")] {
            let whole = tokens(&text, text.len().max(1));
            for size in 1..=text.len() {
                // Text between stanzas is handed on as it comes; a fault may be found earlier.
                let parts = tokens(&text, size);
                prop_assert_eq!(parts.as_ref().err(), whole.as_ref().err());
                if !text.starts_with(' ') && text.starts_with("<s><m>") && !text.contains("</") {
                    prop_assert_eq!(&parts, &whole);
                }
            }
        }
    }
}
