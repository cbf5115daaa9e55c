//! `ApiErrors`: a refusal in the platform's words, synchronous or inside a notification.

use crate::model::ApiError;

use super::xml::{Xml, XmlError};

/// Longest text of an error that is kept, in bytes.
const MAX_TEXT: usize = 512;

/// The error in the body of a 4xx or 5xx answer; empty where the body is no `ApiErrors` (a proxy
/// may answer HTML or nothing).
#[must_use]
pub fn document(body: &[u8]) -> ApiError {
    Xml::open_as(body, "apierrors")
        .and_then(|mut xml| element(&mut xml))
        .unwrap_or_default()
}

/// Reads the rest of an `apiErrors` element. Of several errors the first that says anything wins.
///
/// # Errors
/// Where the XML is not acceptable.
pub fn element(xml: &mut Xml<'_>) -> Result<ApiError, XmlError> {
    let mut first = ApiError::default();
    xml.children(|xml, tag| {
        if tag.name() != "apierror" {
            return xml.skip();
        }
        let mut error = ApiError::default();
        xml.children(|xml, tag| {
            let field = match tag.name() {
                "errortype" => &mut error.kind,
                "errormessage" => &mut error.message,
                "errordata" => &mut error.data,
                _ => return xml.skip(),
            };
            xml.text_into(field)?;
            shorten(field);
            Ok(())
        })?;
        if first == ApiError::default() {
            first = error;
        }
        Ok(())
    })?;
    Ok(first)
}

fn shorten(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = text.floor_char_boundary(MAX_TEXT);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let expected = ApiError {
            kind: "Invalid State".to_owned(),
            message: "cannot leave this state".to_owned(),
            data: "LOGOUT".to_owned(),
        };
        let sync = b"<ApiErrors><ApiError><ErrorType>Invalid State</ErrorType>\
            <ErrorMessage>cannot leave this state</ErrorMessage><ErrorData>LOGOUT</ErrorData></ApiError>\
            <ApiError><ErrorType>Second</ErrorType></ApiError></ApiErrors>";
        let later = b"<apiErrors><apiError><errorData>LOGOUT</errorData>\
            <errorMessage>cannot leave this state</errorMessage><errorType>Invalid State</errorType></apiError></apiErrors>";
        assert_eq!(document(sync), expected);
        assert_eq!(document(later), expected);
    }

    #[test]
    fn html_is_an_empty_error() {
        assert_eq!(
            document(b"<html><body>Bad</body></html>"),
            ApiError::default()
        );
        assert_eq!(document(b""), ApiError::default());
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let body = format!(
            "<ApiErrors><ApiError><ErrorMessage>x{}</ErrorMessage></ApiError></ApiErrors>",
            "é".repeat(MAX_TEXT)
        );
        let error = document(body.as_bytes());
        assert!(error.message.len() <= MAX_TEXT);
        assert!(error.message.ends_with('é'));
    }
}
