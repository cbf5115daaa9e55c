//! Reason codes and wrap-up reasons of the simulated configuration (reference section 4).

use super::xml::leaf;

/// One reason code; requests use the id, reports show the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Database id.
    pub id: u32,
    /// Number in reports.
    pub code: u32,
    /// Text.
    pub label: &'static str,
    /// `NOT_READY` or `LOGOUT`.
    pub category: &'static str,
    /// Set by the system, never listed.
    pub system: bool,
}

const fn listed(id: u32, code: u32, category: &'static str, label: &'static str) -> Reason {
    Reason {
        id,
        code,
        label,
        category,
        system: false,
    }
}

/// A code the platform sets itself; its id is the code.
pub const fn system(code: u32, category: &'static str, label: &'static str) -> Reason {
    Reason {
        id: code,
        code,
        label,
        category,
        system: true,
    }
}

/// What an agent may choose.
pub const LISTED: [Reason; 14] = [
    listed(1, 31, "NOT_READY", "Break"),
    listed(2, 32, "NOT_READY", "Lunch"),
    listed(3, 33, "NOT_READY", "Meeting"),
    listed(4, 34, "NOT_READY", "Coaching"),
    listed(5, 35, "NOT_READY", "Paperwork"),
    listed(6, 36, "NOT_READY", "Research"),
    listed(7, 37, "NOT_READY", "E-mail"),
    listed(8, 38, "NOT_READY", "Technical problem"),
    listed(9, 41, "NOT_READY", "Training"),
    listed(10, 42, "NOT_READY", "Other"),
    listed(21, 51, "LOGOUT", "End of shift"),
    listed(22, 52, "LOGOUT", "Sick"),
    listed(23, 53, "LOGOUT", "Change of place"),
    listed(24, 54, "LOGOUT", "Other"),
];

/// Wrap-up reasons: database id and label.
pub const WRAP_UP: [(u32, &str); 3] = [
    (27, "Address changed"),
    (28, "Question answered"),
    (29, "Call back"),
];

/// The listed code of that id and category.
pub fn find(id: u32, category: &str) -> Option<Reason> {
    LISTED
        .iter()
        .copied()
        .find(|reason| reason.id == id && reason.category == category)
}

/// Appends one `<ReasonCode>` under the given spelling; notifications carry the id as well.
pub fn write(out: &mut String, tag: &str, reason: Reason, with_id: bool) {
    out.push('<');
    out.push_str(tag);
    out.push('>');
    leaf(out, "category", reason.category);
    leaf(out, "code", &reason.code.to_string());
    leaf(out, "forAll", "true");
    if with_id {
        leaf(out, "id", &reason.id.to_string());
    }
    leaf(out, "label", reason.label);
    leaf(
        out,
        "systemCode",
        if reason.system { "true" } else { "false" },
    );
    leaf(
        out,
        "uri",
        &format!("/finesse/api/ReasonCode/{}", reason.id),
    );
    out.push_str("</");
    out.push_str(tag);
    out.push('>');
}

/// The `<ReasonCodes>` list of a category.
pub fn list(category: &str) -> String {
    let mut out = format!("<ReasonCodes category=\"{category}\">");
    for reason in LISTED.iter().filter(|reason| reason.category == category) {
        write(&mut out, "ReasonCode", *reason, false);
    }
    out.push_str("</ReasonCodes>");
    out
}

/// The `<WrapUpReasons>` list.
pub fn wrap_up_list() -> String {
    let mut out = String::from("<WrapUpReasons>");
    for (id, label) in WRAP_UP {
        out.push_str("<WrapUpReason>");
        leaf(&mut out, "uri", &format!("/finesse/api/WrapUpReason/{id}"));
        leaf(&mut out, "label", label);
        leaf(&mut out, "forAll", "true");
        out.push_str("</WrapUpReason>");
    }
    out.push_str("</WrapUpReasons>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_belong_to_one_category() {
        assert_eq!(find(9, "NOT_READY").map(|r| r.code), Some(41));
        assert_eq!(find(9, "LOGOUT"), None);
        assert!(list("LOGOUT").contains("<code>51</code>"));
        assert!(!list("LOGOUT").contains("Training"));
    }
}
