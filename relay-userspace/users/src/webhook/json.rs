//! What is sent to an authorization server, and what it answers.

use std::net::SocketAddr;
use std::time::Duration;

use hairpin_proto::stun::PasswordKeys;
use serde::{Deserialize, Serialize};

use super::label;
use crate::layout::{parse_address, parse_keys, wrong};
use crate::{Answer, Grant, Question, StoreError, Subject, User};

#[derive(Serialize)]
struct Asked<'a> {
    subject: &'a str,
    realm: &'a str,
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    client: SocketAddr,
    server: SocketAddr,
    transport: &'a str,
}

/// Members that are not known are for others.
#[derive(Deserialize)]
struct Told {
    allow: bool,
    password: Option<String>,
    key: Option<ToldKey>,
    #[serde(default)]
    relayed_addresses: Vec<String>,
    allocations: Option<u32>,
    cache_seconds: Option<u32>,
}

#[derive(Deserialize)]
struct ToldKey {
    md5: Option<String>,
    sha256: Option<String>,
}

/// The body of a question. None: authorization servers are not asked such a question.
pub(super) fn question(question: &Question) -> Option<Vec<u8>> {
    let (subject, username, account) = label(&question.subject)?;
    let Question { realm, client, server, transport, .. } = question;
    let (client, server, transport) = (*client, *server, transport.label());
    serde_json::to_vec(&Asked { subject, realm, username, account, client, server, transport }).ok()
}

/// What an answer says, and how long it holds.
pub(super) fn answer(body: &[u8], question: &Question) -> Result<(Answer, Duration), StoreError> {
    // What serde says may quote the answer: only where it stopped is told.
    let told: Told = serde_json::from_slice(body).map_err(|error| {
        let why = if error.is_data() { "not the object that was asked for" } else { "not JSON" };
        wrong("answer", format!("{why} (line {}, column {})", error.line(), error.column()))
    })?;
    let lasts = Duration::from_secs(told.cache_seconds.unwrap_or_default().into());
    if !told.allow {
        return Ok((Answer::Refused, lasts));
    }
    let addresses = told.relayed_addresses.iter().map(|address| parse_address(address)).collect::<Result<_, _>>()?;
    let grant = Grant { addresses, allocations: told.allocations };
    let Subject::User(name) = &question.subject else { return Ok((Answer::Admitted(grant), lasts)) };
    let keys = match (&told.password, &told.key) {
        (Some(password), _) => Some(PasswordKeys::derive(name, &question.realm, password)),
        (None, Some(key)) => parse_keys(key.md5.as_deref(), key.sha256.as_deref())?,
        (None, None) => None,
    };
    let keys = keys.ok_or_else(|| wrong("answer", "a user is let in with neither password nor key"))?;
    Ok((Answer::User(User { name: name.clone(), keys, grant, is_admitted: true }), lasts))
}
