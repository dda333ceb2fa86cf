//! Requests that cannot be answered before somebody else was asked: who the user is, or whether it may.

use std::sync::Arc;

use super::cause::Cause;
use super::directory::{Answer, Grant, Question, Subject};
use super::effect::{Disposition, Now};
use super::realm::Realm;
use super::request::Request;
use super::server::Server;
use crate::address::FiveTuple;

impl Server {
    /// Takes a client's message again, now that there is an answer to what [`Disposition::Ask`] had to be known for.
    ///
    /// There may be another question behind it.
    pub fn answered<'p>(
        &mut self,
        now: Now,
        five_tuple: FiveTuple,
        message: &'p [u8],
        question: Question,
        answer: Answer,
    ) -> Disposition<'p> {
        let answer = Arc::new(answer);
        self.authenticator.known.learn(now.instant, &question, &answer);
        self.answered = Some((question, answer));
        let disposition = self.client_datagram(now, five_tuple, message);
        self.answered = None;
        disposition
    }

    /// What has to be answered, right after [`Disposition::Ask`].
    pub fn take_question(&mut self) -> Option<Question> {
        self.question.take()
    }

    /// Takes the answer to [`Effect::LookUp`](super::Effect::LookUp).
    pub fn learn(&mut self, now: Now, question: &Question, answer: Answer) {
        self.authenticator.known.learn(now.instant, question, &Arc::new(answer));
    }

    /// What the user may have, if it may have an allocation at all; `None` if somebody has to be asked first.
    pub(super) fn admitted(&mut self, now: Now, request: &Request<'_>) -> Result<Option<Grant>, Cause> {
        let (realm, proof) = (request.realm, request.proof);
        if !realm.asks_for_admission || proof.is_admitted {
            return Ok(Some(proof.grant.clone()));
        }
        let subject = Subject::Admission { username: request.username.into(), account: request.account.into() };
        let question = question(&request.reply.five_tuple, realm, subject);
        let is_it = |known: &Question| (&known.realm, &known.subject) == (&question.realm, &question.subject);
        let at_hand = self.answered.as_ref().filter(|(known, _)| is_it(known)).map(|(_, answer)| Arc::clone(answer));
        let fresh = || {
            let known = self.authenticator.known.find(now.instant, &question.realm, &question.subject)?;
            known.1.then(|| Arc::clone(known.0))
        };
        match at_hand.or_else(fresh).as_deref() {
            Some(Answer::Admitted(grant)) => Ok(Some(grant.or(&proof.grant))),
            Some(Answer::Unavailable) => Err(Cause::UsersUnavailable),
            Some(_) => Err(Cause::NotAdmitted),
            None => {
                self.question = Some(question);
                Ok(None)
            }
        }
    }
}

/// What is asked for a client.
pub(super) fn question(five_tuple: &FiveTuple, realm: &Realm, subject: Subject) -> Question {
    Question {
        realm: Arc::clone(&realm.name),
        subject,
        client: five_tuple.client.socket(),
        server: five_tuple.server.socket(),
        transport: five_tuple.transport,
    }
}
