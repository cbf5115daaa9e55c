//! How documents for machines are written: OpenAPI 3.1, made from operations that say of themselves
//! what they take and answer, and JSON Schemas ([`shape`]). What stands in them is said where it is
//! served and by [`crate::contracts`].

pub(crate) mod shape;

use serde_json::{Map, Value, json};

use shape::{field, moved, object, refers, text};

/// Version of what clients say and hear; a member or message that is added raises the second figure.
pub(crate) const PROTOCOL: &str = "1.0.0";
/// Where the definitions of an OpenAPI document stand.
const SCHEMAS: &str = "#/components/schemas/";
/// Name of the bearer token among the security schemes.
const TOKEN: &str = "token";

/// What a caller has to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// Nothing.
    Nothing,
    /// A token, where the listener or a setting wants one.
    MaybeToken,
    /// A token, wherever there is one.
    Token,
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    id: &'static str,
    summary: &'static str,
    asks: Asks,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
}

/// Every refusal is this object.
pub(crate) fn error_shape() -> Value {
    object("A refusal.", [field("error", text(), "Why, for a person.")])
}

impl Operation {
    pub(crate) fn new(
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            asks: Asks::Nothing,
            parameters: Vec::new(),
            body: None,
            answers: Map::new(),
        }
    }

    pub(crate) fn asks(mut self, asks: Asks) -> Self {
        self.asks = asks;
        if asks == Asks::Nothing {
            return self;
        }
        self.refuses(401, "No token, or a wrong one.").refuses(
            403,
            "Refused: another site's call, a foreign Host, a token without the right.",
        )
    }

    /// A parameter in the query that may be left out.
    pub(crate) fn query(self, name: &str, shape: Value, about: &str) -> Self {
        self.parameter(
            json!({ "name": name, "in": "query", "schema": shape, "description": about }),
        )
    }

    /// A part of the path.
    pub(crate) fn in_path(self, name: &str, shape: Value, about: &str) -> Self {
        self.parameter(json!({ "name": name, "in": "path", "required": true, "schema": shape, "description": about }))
    }

    /// A parameter as it stands in the document.
    pub(crate) fn parameter(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    pub(crate) fn body(mut self, required: bool, shape: Value) -> Self {
        self.body = Some(
            json!({ "required": required, "content": { "application/json": { "schema": shape } } }),
        );
        self
    }

    pub(crate) fn answers(self, status: u16, kind: &str, shape: Value, about: &str) -> Self {
        let answer = json!({ "description": about, "content": { kind: { "schema": shape } } });
        self.answer(status, answer)
    }

    /// An answer as it stands in the document.
    pub(crate) fn answer(mut self, status: u16, answer: Value) -> Self {
        self.answers.insert(status.to_string(), answer);
        self
    }

    pub(crate) fn json(self, status: u16, shape: Value, about: &str) -> Self {
        self.answers(status, "application/json", shape, about)
    }

    pub(crate) fn refuses(self, status: u16, about: &str) -> Self {
        self.json(status, refers("Error"), about)
    }

    fn document(&self) -> Value {
        let mut document = json!({
            "operationId": self.id, "summary": self.summary, "responses": self.answers,
        });
        if !self.parameters.is_empty() {
            document["parameters"] = json!(self.parameters);
        }
        if let Some(body) = &self.body {
            document["requestBody"] = body.clone();
        }
        document["security"] = match self.asks {
            Asks::Nothing => json!([{}]),
            Asks::MaybeToken => json!([{}, { TOKEN: [] }]),
            Asks::Token => json!([{ TOKEN: [] }]),
        };
        document
    }
}

/// A whole document.
pub(crate) fn document<'o>(
    title: &str,
    about: &str,
    operations: impl IntoIterator<Item = &'o Operation>,
    mut schemas: Map<String, Value>,
) -> Value {
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.document();
    }
    schemas.insert("Error".to_owned(), error_shape());
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": title, "version": PROTOCOL, "description": about,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { TOKEN: { "type": "http", "scheme": "bearer" } },
        },
    });
    moved(document, SCHEMAS)
}
