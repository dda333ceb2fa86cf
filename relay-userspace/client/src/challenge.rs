//! What a server says about authentication, and how the client answers (RFC 8489 section 9.2.5, RFC 7635 sections 5 and 8).

use hairpin_proto::stun::attribute::{
    AccessTokenAttribute, Nonce, PasswordAlgorithmAttribute, PasswordAlgorithms, Realm, ThirdPartyAuthorization,
    UserHash, Username,
};
use hairpin_proto::stun::prepare::opaque_string;
use hairpin_proto::stun::{
    Integrity, LongTermKey, Message, MessageBuilder, Method, PasswordAlgorithm, SecurityFeatures, user_hash,
};

use crate::credentials::{Credentials, Security, TokenCredential};
use crate::error::Error;

/// Who the client can say it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) credentials: Option<Credentials>,
    pub(crate) token: Option<TokenCredential>,
    pub(crate) security: Security,
}

/// A challenge of the server, with all that follows from it for the requests to come.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    name: Name,
    realm: String,
    nonce: String,
    signature: Signature,
    /// PASSWORD-ALGORITHMS as the server sent it, and which of them is used.
    algorithms: Option<(Vec<u8>, PasswordAlgorithm)>,
    token: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Name {
    Plain(String),
    Hashed([u8; 32]),
}

/// How a request is signed, and its answer must be.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    key: LongTermKey,
    integrity: Integrity,
}

impl Identity {
    /// Answers a challenge, a 401 or 438. `None`, if it lacks what a challenge has.
    pub(crate) fn answer(&self, message: &Message<'_>, method: Method) -> Result<Option<Challenge>, Error> {
        // Third-party authorization takes precedence (RFC 7635 section 6.1).
        let server_name = message.attribute().ok().flatten().map(|ThirdPartyAuthorization(name)| name);
        let token = self.token.as_ref().filter(|_| server_name.is_some());
        if token.is_none() && self.credentials.is_none() {
            return Err(match server_name {
                Some(name) => Error::TokenNeeded(name.to_owned()),
                None => Error::CredentialsNeeded,
            });
        }
        let features = self.features(message);
        let algorithms = match self.security {
            Security::Legacy => None,
            Security::Modern => algorithms(message, features, method)?,
        };
        let (Ok(Some(Realm(realm))), Ok(Some(Nonce(nonce)))) = (message.attribute(), message.attribute()) else {
            return Ok(None);
        };
        // Who sends PASSWORD-ALGORITHMS knows the newer signature, and wants no other from then on.
        let integrity = if algorithms.is_some() { Integrity::Sha256 } else { Integrity::Sha1 };
        let (name, key, token) = match (token, &self.credentials) {
            (Some(token), _) => (Name::Plain(token.kid.clone()), token.key(), Some(token.token.clone())),
            (None, Some(Credentials { username, password })) => {
                let algorithm = algorithms.as_ref().map_or(PasswordAlgorithm::Md5, |(_, algorithm)| *algorithm);
                let username = match self.security {
                    Security::Legacy => username.as_str().into(),
                    Security::Modern => opaque_string(username),
                };
                let name = if features.username_anonymity {
                    Name::Hashed(user_hash(&username, realm))
                } else {
                    Name::Plain(username.clone().into_owned())
                };
                (name, algorithm.derive(&username, realm, password), None)
            }
            (None, None) => return Err(Error::CredentialsNeeded),
        };
        let signature = Signature { key, integrity };
        Ok(Some(Challenge { name, realm: realm.to_owned(), nonce: nonce.to_owned(), signature, algorithms, token }))
    }

    /// Whether somebody on the way has taken away from an answer what its nonce says that the server has sent. An answer that
    /// is no challenge is ignored then.
    pub(crate) fn is_bid_down(&self, message: &Message<'_>) -> bool {
        self.features(message).password_algorithms && message.find(PASSWORD_ALGORITHMS).is_none()
    }

    /// What the nonce of a message says of its server.
    fn features(&self, message: &Message<'_>) -> SecurityFeatures {
        let nonce = message.attribute().ok().flatten().filter(|_| self.security == Security::Modern);
        nonce.and_then(|Nonce(nonce)| SecurityFeatures::of_nonce(nonce)).unwrap_or_default()
    }
}

const PASSWORD_ALGORITHMS: u16 = <PasswordAlgorithms<'_> as hairpin_proto::stun::attribute::Attribute<'_>>::TYPE;

/// The algorithms that the server offers, and the first of them that there is here.
fn algorithms(
    message: &Message<'_>,
    features: SecurityFeatures,
    method: Method,
) -> Result<Option<(Vec<u8>, PasswordAlgorithm)>, Error> {
    let Ok(Some(list)) = message.attribute::<PasswordAlgorithms<'_>>() else {
        return if features.password_algorithms { Err(Error::BidDown(method)) } else { Ok(None) };
    };
    let first = list.iter().find_map(|offered| offered.algorithm()).ok_or(Error::NoPasswordAlgorithm)?;
    Ok(Some((list.as_bytes().to_vec(), first)))
}

impl Challenge {
    /// Appends what answers the challenge, the signature last.
    pub(crate) fn write<'b>(&self, builder: MessageBuilder<'b>, method: Method) -> MessageBuilder<'b> {
        let builder = match &self.name {
            Name::Plain(username) => builder.with(&Username(username)),
            Name::Hashed(hash) => builder.with(&UserHash(*hash)),
        };
        let mut builder = builder.with(&Realm(&self.realm)).with(&Nonce(&self.nonce));
        if let Some((list, algorithm)) = &self.algorithms {
            builder = builder
                .with_option(PasswordAlgorithms::from_bytes(list).as_ref())
                .with(&PasswordAlgorithmAttribute((*algorithm).into()));
        }
        // RFC 7635 section 9: in no other requests. The server knows the key from then on.
        let token = self.token.as_deref().filter(|_| method == Method::ALLOCATE || method == Method::REFRESH);
        builder
            .with_option(token.map(AccessTokenAttribute).as_ref())
            .with_integrity(&self.signature.key, self.signature.integrity)
    }

    pub(crate) fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The same challenge, answered with another token if it was answered with one.
    pub(crate) fn renew_token(&mut self, renewed: &TokenCredential) {
        if let Some(token) = &mut self.token {
            token.clone_from(&renewed.token);
            self.name = Name::Plain(renewed.kid.clone());
            self.signature.key = renewed.key();
        }
    }
}

impl Signature {
    /// Whether an answer to what was signed so is authentic. A newer request is not answered by an older signature.
    pub(crate) fn verifies(&self, answer: &Message<'_>) -> bool {
        let fits = self.integrity == Integrity::Sha1 || answer.integrity() == Some(Integrity::Sha256);
        fits && answer.verify_integrity(&self.key)
    }
}
