//! Access tokens (RFC 7635), sealed here and opened by coturn.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use hairpin_client::{AllocateOptions, Client, Error, Security, Settings, TokenCredential, Transport};
use hairpin_proto::address::AddressFamily;
use hairpin_proto::stun::ErrorCode;
use hairpin_proto::turn::{AccessToken, MacKey, TokenAlgorithm, TokenKey, TokenTimestamp};

use crate::server::{Coturn, Login, SERVER_NAME, TOKEN_KEY, echo_through};

/// Coturn wants keys of 20 bytes in tokens, and signs and verifies with the first 16 of them: so the client has these.
const MAC_KEY: &[u8; 20] = b"ZksjpweoixXmvn67534m";

/// A token that was made so many seconds ago, for the server of this name.
fn token(server_name: &str, mac_key: &[u8; 20], age: u64, lifetime: u32) -> TokenCredential {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let key = TokenKey::new(TokenAlgorithm::A256Gcm, TOKEN_KEY).unwrap();
    let timestamp = TokenTimestamp::from_unix(now - age);
    let sealed = AccessToken { mac_key: MacKey::new(mac_key).unwrap(), timestamp, lifetime };
    let token = key.seal(server_name, &sealed, [9; 12]);
    TokenCredential { kid: "north".to_owned(), mac_key: MacKey::new(&mac_key[..16]).unwrap(), token }
}

async fn client(coturn: &Coturn, token: Option<TokenCredential>, security: Security) -> Client {
    let mut options = coturn.options(Transport::Udp);
    options.settings = Settings { credentials: None, token, security, ..options.settings };
    coturn.connect(options).await.unwrap()
}

#[tokio::test]
async fn whoever_has_a_token_relays_without_a_password() {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let Some(coturn) = Coturn::start(ip, Login::Token).await else { return };
    for security in [Security::Legacy, Security::Modern] {
        let token = token(SERVER_NAME, MAC_KEY, 0, 3600);
        let client = client(&coturn, Some(token), security).await;
        echo_through(&client, ip, AddressFamily::V4).await;
    }

    let error = client(&coturn, None, Security::Legacy).await.allocate(AllocateOptions::default()).await.unwrap_err();
    assert!(matches!(&error, Error::TokenNeeded(name) if name == SERVER_NAME), "{error}");
}

#[tokio::test]
async fn a_token_that_is_old_or_for_another_server_is_refused() {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let Some(coturn) = Coturn::start(ip, Login::Token).await else { return };
    for token in [token("turn.example.com", MAC_KEY, 0, 3600), token(SERVER_NAME, MAC_KEY, 60, 50)] {
        let client = client(&coturn, Some(token), Security::Legacy).await;
        let error = client.allocate(AllocateOptions::default()).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNAUTHENTICATED), "{error}");
    }
}

#[tokio::test]
async fn another_token_refreshes_an_allocation() {
    let ip = IpAddr::from(Ipv4Addr::LOCALHOST);
    let Some(coturn) = Coturn::start(ip, Login::Token).await else { return };
    let client = client(&coturn, Some(token(SERVER_NAME, MAC_KEY, 0, 3600)), Security::Legacy).await;
    client.allocate(AllocateOptions::default()).await.unwrap();
    client.set_token(token(SERVER_NAME, b"another one, as long", 0, 3600));
    assert_eq!(client.refresh(Some(Duration::from_secs(700))).await.unwrap(), Duration::from_secs(700));
    client.release().await.unwrap();
}
