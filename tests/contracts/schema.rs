//! As much of JSON Schema as the project's documents use. A keyword that is not known here is a
//! failure, so nothing is passed over unseen. The real validators are asked by `scripts/contracts`.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// What is judged by: a document, and whether members that no schema names are refused.
pub struct Judge<'d> {
    document: &'d Value,
    strict: bool,
}

/// Say something to people or to other validators only. Patterns are left to those, but for the
/// one that asks for a character.
const PASSED_OVER: [&str; 9] = [
    "$defs",
    "$schema",
    "components",
    "description",
    "format",
    "pattern",
    "title",
    "writeOnly",
    "x-total-count",
];

impl<'d> Judge<'d> {
    /// A judge to whom what is not in the document is wrong.
    pub fn strict(document: &'d Value) -> Self {
        Self {
            document,
            strict: true,
        }
    }

    /// A judge as any other validator is.
    pub fn lenient(document: &'d Value) -> Self {
        Self {
            document,
            strict: false,
        }
    }

    /// What is wrong with a value, each with its place; nothing where it fits.
    pub fn problems(&self, shape: &Value, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.look(shape, value, "", &mut problems);
        problems
    }

    /// Panics where the value does not fit the schema that a pointer leads to.
    pub fn must_fit(&self, pointer: &str, value: &Value) {
        let shape = self.document.pointer(pointer);
        let shape = shape.unwrap_or_else(|| panic!("there is no {pointer}"));
        let problems = self.problems(shape, value);
        assert!(problems.is_empty(), "{pointer}: {problems:#?}\n{value:#}");
    }

    fn look(&self, shape: &Value, value: &Value, at: &str, problems: &mut Vec<String>) {
        let shape = shape.as_object().expect("a schema");
        let mut wrong = |what: String| problems.push(format!("{at}: {what}"));
        for (keyword, rule) in shape {
            let fits = match keyword.as_str() {
                "type" => kinds(rule).iter().any(|kind| is(kind, value)),
                "const" => rule == value,
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_i64().is_none_or(|n| n >= rule.as_i64().unwrap()),
                "maximum" => value.as_i64().is_none_or(|n| n <= rule.as_i64().unwrap()),
                "minLength" => length(value).is_none_or(|n| n >= rule.as_u64().unwrap()),
                "maxLength" => length(value).is_none_or(|n| n <= rule.as_u64().unwrap()),
                "minItems" | "minProperties" => {
                    size(value).is_none_or(|n| n >= rule.as_u64().unwrap())
                }
                "maxItems" | "maxProperties" => {
                    size(value).is_none_or(|n| n <= rule.as_u64().unwrap())
                }
                "pattern" if rule == "\\S" => {
                    value.as_str().is_none_or(|text| !text.trim().is_empty())
                }
                "anyOf" => self.fitting(rule, value) > 0,
                "oneOf" => self.fitting(rule, value) == 1,
                "not" => !self.problems(rule, value).is_empty(),
                "required" | "properties" | "additionalProperties" | "items" | "allOf" | "$ref" => {
                    true
                }
                passed if PASSED_OVER.contains(&passed) => true,
                unknown => panic!("{at}: keyword {unknown}"),
            };
            if !fits {
                wrong(format!("{value} against {keyword} {rule}"));
            }
        }
        for part in shape
            .get("allOf")
            .into_iter()
            .flat_map(|all| all.as_array().unwrap())
        {
            // Beside other members, so these are not judged again.
            let part_judge = Judge {
                strict: false,
                ..*self
            };
            part_judge.look(part, value, at, problems);
        }
        if let Some(to) = shape.get("$ref") {
            let to = to.as_str().unwrap();
            let pointer = to.strip_prefix('#').expect("a local reference");
            let target = self.document.pointer(pointer);
            self.look(
                target.unwrap_or_else(|| panic!("no {to}")),
                value,
                at,
                problems,
            );
        }
        if let (Some(rule), Some(items)) = (shape.get("items"), value.as_array()) {
            for (index, item) in items.iter().enumerate() {
                self.look(rule, item, &format!("{at}/{index}"), problems);
            }
        }
        if let Some(members) = value.as_object() {
            self.look_into(shape, members, at, problems);
        }
    }

    fn look_into(
        &self,
        shape: &Map<String, Value>,
        members: &Map<String, Value>,
        at: &str,
        problems: &mut Vec<String>,
    ) {
        let named = shape.get("properties").and_then(Value::as_object);
        for name in shape
            .get("required")
            .into_iter()
            .flat_map(|r| r.as_array().unwrap())
        {
            if !members.contains_key(name.as_str().unwrap()) {
                problems.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, member) in members {
            let at = format!("{at}/{name}");
            match (
                named.and_then(|named| named.get(name)),
                shape.get("additionalProperties"),
            ) {
                (Some(rule), _) => self.look(rule, member, &at, problems),
                (None, Some(Value::Bool(false))) => problems.push(format!("{at} is not allowed")),
                (None, Some(Value::Bool(true))) => {}
                (None, Some(rule)) => self.look(rule, member, &at, problems),
                (None, None) if self.strict && named.is_some() => {
                    problems.push(format!("{at} stands in no schema: write it down"));
                }
                (None, None) => {}
            }
        }
    }

    fn fitting(&self, rules: &Value, value: &Value) -> usize {
        let rules = rules.as_array().unwrap().iter();
        rules
            .filter(|rule| self.problems(rule, value).is_empty())
            .count()
    }
}

fn kinds(rule: &Value) -> BTreeSet<&str> {
    match rule {
        Value::String(one) => BTreeSet::from([one.as_str()]),
        several => several
            .as_array()
            .unwrap()
            .iter()
            .map(|kind| kind.as_str().unwrap())
            .collect(),
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    }
}

fn length(value: &Value) -> Option<u64> {
    value.as_str().map(|text| text.chars().count() as u64)
}

fn size(value: &Value) -> Option<u64> {
    let list = value.as_array().map(Vec::len);
    list.or(value.as_object().map(Map::len))
        .map(|size| size as u64)
}
