//! Requests, as clients make them, and how they are answered.

use hairpin_proto::address::PeerAddr;
use hairpin_proto::stun::attribute::{
    AccessTokenAttribute, ChannelNumberAttribute, Lifetime, Nonce, PasswordAlgorithmAttribute, PasswordAlgorithms,
    Realm as RealmAttribute, UserHash, Username, XorPeerAddress,
};
use hairpin_proto::stun::{Class, Message, MessageBuilder, Method, TransactionId, user_hash};
use hairpin_proto::turn::{self, Cause, Disposition, Question, RelayId};

use super::{Answer, Client, Event, Relay, UDP, error_in, socket};

impl Relay {
    /// Gives a datagram to the server that is not to be forwarded, and returns all effects.
    pub(crate) fn control(&mut self, client: &Client, datagram: &[u8]) -> Vec<Event> {
        let disposition = self.server.client_datagram(self.now, client.five_tuple, datagram);
        assert_eq!(disposition, Disposition::Control, "{datagram:02x?}");
        self.settle(datagram)
    }

    /// All effects of a request that has been carried out, or refused.
    fn settle(&mut self, datagram: &[u8]) -> Vec<Event> {
        assert_eq!(self.server.take_question(), None, "what is answered needs nobody else");
        let (refused, answered) = (self.refusals.len(), self.responses.len());
        let events = self.drain();
        // A challenge looks the same, whether it is the first or the answer to wrong credentials.
        let challenged = self.responses[answered..].iter().any(|response| error_in(response) == Some(401));
        let wrong = self.refusals[refused..].iter().any(|refused| refused.code == 401);
        let has_credentials = Message::parse(datagram).is_ok_and(|request| request.has_integrity());
        assert_eq!(wrong, challenged && has_credentials, "wrong credentials are refused, none are not");
        events
    }

    /// Gives a request to the server for which it has to ask somebody first.
    pub(crate) fn asks(&mut self, client: &Client, datagram: &[u8]) -> Question {
        let disposition = self.server.client_datagram(self.now, client.five_tuple, datagram);
        assert_eq!(disposition, Disposition::Ask, "{datagram:02x?}");
        self.asked(client)
    }

    /// The same with a request that was asked about before: there is one question more.
    pub(crate) fn told_and_asks(
        &mut self,
        client: &Client,
        datagram: &[u8],
        question: Question,
        answer: turn::Answer,
    ) -> Question {
        let disposition = self.server.answered(self.now, client.five_tuple, datagram, question, answer);
        assert_eq!(disposition, Disposition::Ask);
        self.asked(client)
    }

    fn asked(&mut self, client: &Client) -> Question {
        let question = self.server.take_question().expect("there is a question");
        assert_eq!(self.server.take_question(), None);
        assert_eq!(self.drain(), [], "who has to wait changes nothing");
        let five_tuple = client.five_tuple;
        let (client, server) = (five_tuple.client.socket(), five_tuple.server.socket());
        assert_eq!((question.client, question.server, question.transport), (client, server, five_tuple.transport));
        question
    }

    /// Answers a question, and what becomes of the request then.
    pub(crate) fn told(
        &mut self,
        client: &Client,
        datagram: &[u8],
        question: Question,
        answer: turn::Answer,
    ) -> Answer {
        let disposition = self.server.answered(self.now, client.five_tuple, datagram, question, answer);
        assert_eq!(disposition, Disposition::Control);
        let events = self.settle(datagram);
        self.answer_among(client, datagram, events)
    }

    /// What becomes of a client's datagram.
    pub(crate) fn client_sends<'p>(&mut self, client: &Client, datagram: &'p [u8]) -> Disposition<'p> {
        self.server.client_datagram(self.now, client.five_tuple, datagram)
    }

    /// What becomes of a peer's datagram.
    pub(crate) fn peer_sends<'p>(&mut self, relay: RelayId, peer: &str, payload: &'p [u8]) -> Disposition<'p> {
        self.server.peer_datagram(self.now, relay, PeerAddr::new(socket(peer)), payload)
    }

    pub(crate) fn transaction_id(&mut self) -> TransactionId {
        self.transaction += 1;
        let mut id = [0x5a; 12];
        id[..8].copy_from_slice(&self.transaction.to_be_bytes());
        TransactionId(id)
    }

    /// Sends a signed request, and returns its answer and the other effects.
    pub(crate) fn request(
        &mut self,
        client: &mut Client,
        method: Method,
        attributes: impl FnOnce(MessageBuilder<'_>) -> MessageBuilder<'_>,
    ) -> Answer {
        let datagram = self.signed(client, method, attributes);
        self.answer(client, &datagram)
    }

    /// A signed request, with a nonce that the server has given before.
    pub(crate) fn signed(
        &mut self,
        client: &mut Client,
        method: Method,
        attributes: impl FnOnce(MessageBuilder<'_>) -> MessageBuilder<'_>,
    ) -> Vec<u8> {
        if client.nonce.is_empty() {
            client.nonce = self.challenge(client);
        }
        let mut datagram = Vec::new();
        let name = (!client.is_anonymous).then_some(Username(&client.username));
        let hash = client.is_anonymous.then(|| UserHash(user_hash(&client.username, &client.realm)));
        let offered = client.offered.map(|list| PasswordAlgorithms::from_bytes(list).expect("a list"));
        attributes(MessageBuilder::new(&mut datagram, Class::Request, method, self.transaction_id()))
            .with_option(client.token.as_deref().map(AccessTokenAttribute).as_ref())
            .with_option(name.as_ref())
            .with_option(hash.as_ref())
            .with(&RealmAttribute(&client.realm))
            .with(&Nonce(&client.nonce))
            .with_option(offered.as_ref())
            .with_option(client.chosen.map(PasswordAlgorithmAttribute).as_ref())
            .with_integrity(&client.key, client.integrity)
            .finish(client.fingerprint);
        datagram
    }

    /// Asks for a nonce.
    pub(crate) fn challenge(&mut self, client: &Client) -> String {
        let mut datagram = Vec::new();
        MessageBuilder::new(&mut datagram, Class::Request, Method::REFRESH, self.transaction_id()).finish(false);
        let answer = self.answer(client, &datagram);
        assert_eq!(answer.code(), 401);
        answer.message().attribute::<Nonce<'_>>().unwrap().expect("a challenge has a nonce").0.to_owned()
    }

    /// Sends a request that is answered at once.
    pub(crate) fn answer(&mut self, client: &Client, datagram: &[u8]) -> Answer {
        let events = self.control(client, datagram);
        self.answer_among(client, datagram, events)
    }

    fn answer_among(&mut self, client: &Client, datagram: &[u8], mut events: Vec<Event>) -> Answer {
        let at = events.iter().position(|event| matches!(event, Event::Response(_))).expect("no answer");
        assert_eq!(events.remove(at), Event::Response(client.five_tuple.client));
        assert!(!events.iter().any(|event| matches!(event, Event::Response(_))), "two answers");
        let late = events[at..].iter().find(|event| !matches!(event, Event::Join(..)));
        assert_eq!(late, None, "what a request has changed is told before its answer");
        let answer = Answer { bytes: self.responses.pop().expect("there was a response"), events };
        let request = Message::parse(datagram).unwrap();
        let response = answer.message();
        assert_eq!(response.transaction_id(), request.transaction_id());
        assert_eq!(response.method(), request.method());
        assert_eq!(response.has_fingerprint(), request.has_fingerprint());
        answer
    }

    /// Asks for an allocation of one IPv4 address.
    pub(crate) fn try_allocate(&mut self, client: &mut Client) -> Answer {
        self.request(client, Method::ALLOCATE, |request| request.with(&UDP))
    }

    /// Why the last request was refused.
    pub(crate) fn last_cause(&self) -> Cause {
        self.refusals.last().expect("a request was refused").cause
    }

    /// An allocation of one IPv4 address.
    pub(crate) fn allocate(&mut self, client: &mut Client) -> RelayId {
        let answer = self.try_allocate(client);
        answer.expect_success(client);
        answer.bound()
    }

    pub(crate) fn permit(&mut self, client: &mut Client, peers: &[&str]) -> Answer {
        self.request(client, Method::CREATE_PERMISSION, |request| {
            peers.iter().fold(request, |request, peer| request.with(&XorPeerAddress(socket(peer))))
        })
    }

    pub(crate) fn bind_channel(&mut self, client: &mut Client, number: u16, peer: &str) -> Answer {
        self.request(client, Method::CHANNEL_BIND, |request| {
            let number = ChannelNumberAttribute(number);
            request.with(&number).with(&XorPeerAddress(socket(peer)))
        })
    }

    pub(crate) fn refresh(&mut self, client: &mut Client, seconds: u32) -> Answer {
        self.request(client, Method::REFRESH, |request| request.with(&Lifetime(seconds)))
    }
}
