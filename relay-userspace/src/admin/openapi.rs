//! The document that describes the admin interface (OpenAPI 3.1), made of the handlers themselves.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::access::READ_BY_PAGES;
use super::router;

/// The document, as JSON for people and programs.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        // Both are made of types of ours, and have no map whose keys JSON could not name.
        let mut document = serde_json::to_value(router::paths().into_openapi()).unwrap_or_default();
        complete(&mut document);
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    });
    &DOCUMENT
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "openapi", tag = "relay", responses(
    (status = 200, description = "The document", body = serde_json::Value),
))]
pub(super) async fn serve() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document())
}

/// Adds what is the same for all operations, and for no handler to say.
fn complete(document: &mut Value) {
    document["info"] = json!({
        "title": "Hairpin admin interface",
        "summary": "Looks at a TURN relay, and changes what it does, while it runs.",
        "description": "On the Unix socket (`--admin-socket`) no token is needed. Over TCP (`--admin`), `/metrics`, `/healthz` \
            and `/readyz` are open, and so is `/`, a page for people; the rest takes a bearer token. Times are seconds since the Unix epoch, durations \
            are seconds. Fields are only ever added.",
        "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        "version": env!("CARGO_PKG_VERSION"),
    });
    document["servers"] = json!([{ "url": "http://127.0.0.1:9641", "description": "The default of --admin" }]);
    document["components"]["securitySchemes"] = json!({
        "admin": { "type": "http", "scheme": "bearer", "description": "A token of --admin-token-file" },
        "credentials": { "type": "http", "scheme": "bearer", "description": "A token of --credentials-token-file" },
        "page": { "type": "http", "scheme": "bearer", "description": "A token that `/v1/page-tokens` has made" },
    });
    document["security"] = json!([{ "admin": [] }]);
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete_operation(operation, method == "get" && READ_BY_PAGES.contains(&path.as_str()));
        }
    }
}

fn complete_operation(operation: &mut Value, is_read_by_pages: bool) {
    let is_open = operation.get("security").is_some();
    let has_body = operation.get("requestBody").is_some();
    if operation["tags"] == json!(["credentials"]) {
        operation["security"] = json!([{ "admin": [] }, { "credentials": [] }]);
    }
    if is_read_by_pages {
        operation["security"] = json!([{ "admin": [] }, { "page": [] }]);
    }
    if has_body {
        // Who may leave the body out cannot send `null` instead.
        let body = &mut operation["requestBody"];
        let schema = &mut body["content"]["application/json"]["schema"];
        let is_optional = schema.get("oneOf").is_some();
        if let Some(one) = schema.get("oneOf").map(|kinds| kinds[0].clone()) {
            *schema = one;
        }
        body["required"] = json!(!is_optional);
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    if !is_open {
        refused(responses, "401", "Over TCP: there is no token, or it is none of the relay's");
        refused(responses, "403", "Over TCP: no token is configured, or this one is not for this");
    }
    if has_body {
        refused(responses, "408", "The body has not come in time");
        refused(responses, "413", "The body is too long");
        refused(responses, "415", "The body is not said to be JSON");
    }
}

fn refused(responses: &mut Map<String, Value>, status: &str, description: &str) {
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    let response = json!({ "description": description, "content": { "application/json": { "schema": schema } } });
    responses.insert(status.to_owned(), response);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_for_readers_is_this_document() {
        let copy = include_str!("../../../docs/openapi.json");
        assert!(
            copy == document(),
            "docs/openapi.json is out of date: `hairpin openapi > docs/openapi.json` renews it"
        );
    }

    #[test]
    fn every_operation_says_what_it_is_and_what_it_answers() {
        let document: Value = serde_json::from_str(document()).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path}");
                assert!(operation["responses"]["200"].is_object(), "{method} {path}");
                assert!(
                    ids.insert(operation["operationId"].to_string()),
                    "{method} {path}: {}",
                    operation["operationId"]
                );
            }
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                let is_explained = property.to_string().contains("\"description\"");
                assert!(is_explained, "{name}.{field} is not explained: {property}");
            }
        }
    }
}
