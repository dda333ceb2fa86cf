//! The status page: files that are part of the binary. They hold no data, so everybody may have them; what they show they ask
//! of this interface, by the rules that hold for everybody.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

use super::Admin;

struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const FILES: &[File] = &[
    File { path: "/", kind: "text/html; charset=utf-8", text: include_str!("page.html") },
    File { path: "/page.css", kind: "text/css; charset=utf-8", text: include_str!("page.css") },
    File { path: "/page.svg", kind: "image/svg+xml", text: include_str!("page.svg") },
    File { path: "/page.js", kind: SCRIPT, text: include_str!("page.js") },
    File { path: "/page/details.js", kind: SCRIPT, text: include_str!("details.js") },
    File { path: "/page/elements.js", kind: SCRIPT, text: include_str!("elements.js") },
    File { path: "/page/format.js", kind: SCRIPT, text: include_str!("format.js") },
    File { path: "/page/graph.js", kind: SCRIPT, text: include_str!("graph.js") },
    File { path: "/page/metrics.js", kind: SCRIPT, text: include_str!("metrics.js") },
    File { path: "/page/overview.js", kind: SCRIPT, text: include_str!("overview.js") },
    File { path: "/page/warnings.js", kind: SCRIPT, text: include_str!("warnings.js") },
];

/// What a browser may do for this page: load its own files, ask its own origin, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    // Another release has other files, and they fit together only as one.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// The paths of the page. The document of the interface leaves them out: they are for people, and promise nothing to programs.
pub(super) fn paths() -> Router<Admin> {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(async || serve(file))))
}

fn serve(file: &'static File) -> impl IntoResponse {
    (HEADERS, [(header::CONTENT_TYPE, file.kind)], file.text)
}
