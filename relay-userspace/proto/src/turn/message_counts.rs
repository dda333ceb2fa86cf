//! How many requests and responses there were.

use crate::stun::{ErrorCode, Method};

/// Methods with a count of their own; all others are counted together.
const METHODS: [Method; 7] = [
    Method::BINDING,
    Method::ALLOCATE,
    Method::REFRESH,
    Method::CREATE_PERMISSION,
    Method::CHANNEL_BIND,
    Method::CONNECT,
    Method::CONNECTION_BIND,
];
/// Where all other methods are counted.
const OTHER: usize = METHODS.len();
/// The code of a success response, by the custom of HTTP.
const SUCCESS: u16 = 200;

/// Requests by method and responses by method and code. Both sets are fixed: no client can make them grow.
#[derive(Clone, Debug)]
pub struct MessageCounts {
    requests: [u64; OTHER + 1],
    /// Success first, then the codes in the order of [`ErrorCode::ALL`].
    responses: [[u64; ErrorCode::ALL.len() + 1]; OTHER + 1],
}

impl Default for MessageCounts {
    fn default() -> Self {
        Self { requests: [0; OTHER + 1], responses: [[0; ErrorCode::ALL.len() + 1]; OTHER + 1] }
    }
}

impl MessageCounts {
    /// Requests by the name of their method, zeros included. Those of a method that is not served are `other`.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let requests = self.requests;
        (0..requests.len()).map(move |method| (label(method), requests[method]))
    }

    /// Responses by the name of their method and their code (200 for success), without those that were never given.
    pub fn responses(&self) -> impl Iterator<Item = ((&'static str, u16), u64)> + '_ {
        self.responses.iter().enumerate().flat_map(|(method, counts)| {
            let codes = std::iter::once(SUCCESS).chain(ErrorCode::ALL.iter().map(|code| code.number()));
            codes.zip(counts).filter(|(_, count)| **count > 0).map(move |(code, count)| ((label(method), code), *count))
        })
    }

    pub(super) fn count_request(&mut self, method: Method) {
        self.requests[index(method)] += 1;
    }

    pub(super) fn count_success(&mut self, method: Method) {
        self.responses[index(method)][0] += 1;
    }

    pub(super) fn count_error(&mut self, method: Method, code: ErrorCode) {
        if let Some(at) = ErrorCode::ALL.iter().position(|known| *known == code) {
            self.responses[index(method)][at + 1] += 1;
        }
    }
}

fn index(method: Method) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(OTHER)
}

fn label(method: usize) -> &'static str {
    METHODS.get(method).map_or("other", |method| method.label())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_and_code_has_its_own_count() {
        let mut counts = MessageCounts::default();
        counts.count_request(Method::BINDING);
        counts.count_request(Method::SEND);
        counts.count_success(Method::ALLOCATE);
        counts.count_error(Method::ALLOCATE, ErrorCode::UNAUTHENTICATED);
        counts.count_error(Method::ALLOCATE, ErrorCode::UNAUTHENTICATED);
        let requests: Vec<_> = counts.requests().filter(|(_, count)| *count > 0).collect();
        assert_eq!(requests, [("binding", 1), ("other", 1)]);
        let responses: Vec<_> = counts.responses().collect();
        assert_eq!(responses, [(("allocate", 200), 1), (("allocate", 401), 2)]);
    }
}
