//! Requests that wait until somebody has said who their user is, or whether it may.
//!
//! Only who has shown that it receives at its address comes this far, and there is an end to how many do. The others do not
//! wait with them: a database that is slow or dead is no matter to calls that run.

use std::net::{IpAddr, Ipv6Addr};

use hairpin_proto::address::{FiveTuple, Transport};
use hairpin_proto::turn::{Answer, Disposition, Question};
use hashbrown::HashMap;

use super::Command;
use super::state::{State, now};
use crate::inquiries::Asker;

/// How many requests of a shard may wait.
const MOST: usize = 2048;
/// How many of one source address (of IPv6, one /64): whoever has many users behind one address has them come again.
const MOST_OF_SOURCE: usize = 128;
/// The longest request that may: what a client needs to allocate is much shorter.
const MAX_LEN: usize = 2048;
/// How many answers one request may need: who the user is, and whether it may.
const ROUNDS: u8 = 3;
/// Class, method, length, magic cookie and transaction id.
const HEADER: usize = hairpin_common::wire::STUN_LEN;

/// All that wait in a shard.
#[derive(Debug)]
pub(super) struct Waiting {
    asker: Asker,
    requests: HashMap<u64, Parked>,
    /// By client and transaction id, so that a retransmission waits once.
    by_transaction: HashMap<(FiveTuple, [u8; 12]), u64>,
    /// How many wait, by source.
    of_source: HashMap<IpAddr, usize>,
    next: u64,
}

#[derive(Debug)]
struct Parked {
    client: FiveTuple,
    message: Box<[u8]>,
    /// How many answers it has had.
    round: u8,
}

impl Waiting {
    pub(super) fn new(asker: Asker) -> Self {
        Self { asker, requests: HashMap::new(), by_transaction: HashMap::new(), of_source: HashMap::new(), next: 0 }
    }

    /// How many wait now.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Keeps a request. Returns its number, unless there is no room.
    fn park(&mut self, parked: Parked) -> Result<u64, Parked> {
        let source = source(&parked.client);
        let of_source = self.of_source.get(&source).copied().unwrap_or(0);
        if self.requests.len() >= MOST || of_source >= MOST_OF_SOURCE || parked.message.len() > MAX_LEN {
            return Err(parked);
        }
        self.of_source.insert(source, of_source + 1);
        let number = self.next;
        self.next += 1;
        self.by_transaction.insert(transaction(parked.client, &parked.message), number);
        self.requests.insert(number, parked);
        Ok(number)
    }

    fn take(&mut self, number: u64) -> Option<Parked> {
        let parked = self.requests.remove(&number)?;
        self.by_transaction.remove(&transaction(parked.client, &parked.message));
        let source = source(&parked.client);
        if let Some(count) = self.of_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.of_source.remove(&source);
            }
        }
        Some(parked)
    }
}

fn source(client: &FiveTuple) -> IpAddr {
    match client.client.ip() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn transaction(client: FiveTuple, message: &[u8]) -> (FiveTuple, [u8; 12]) {
    let mut id = [0; 12];
    id.copy_from_slice(&message[HEADER - 12..HEADER]);
    (client, id)
}

impl State {
    /// Has a request wait for an answer to what the engine has to know.
    pub(super) fn wait(&mut self, client: FiveTuple, message: &[u8]) {
        let Some(question) = self.server.take_question() else { return };
        // A retransmission of one that waits.
        if self.waiting.by_transaction.contains_key(&transaction(client, message)) {
            return;
        }
        self.ask(Parked { client, message: message.into(), round: 0 }, question);
    }

    fn ask(&mut self, parked: Parked, question: Question) {
        match self.waiting.park(parked) {
            Ok(number) => {
                let mailbox = self.others[self.index as usize].clone();
                self.waiting.asker.ask(question, move |question, answer| {
                    mailbox.send(Command::Answered(number, Box::new((question, answer))));
                });
            }
            Err(parked) => self.go_on(parked, question, Answer::Unavailable),
        }
    }

    /// Asks what nobody waits for.
    pub(super) fn look_up(&mut self, question: Question) {
        let mailbox = self.others[self.index as usize].clone();
        self.waiting.asker.ask(question, move |question, answer| {
            mailbox.send(Command::Learned(Box::new((question, answer))));
        });
    }

    /// An answer has come.
    pub(super) fn answered(&mut self, number: u64, (question, answer): (Question, Answer)) {
        if let Some(parked) = self.waiting.take(number) {
            self.go_on(parked, question, answer);
        }
    }

    /// Passes a request through the engine again, if its client is still there.
    fn go_on(&mut self, parked: Parked, question: Question, answer: Answer) {
        let Parked { client, ref message, round } = parked;
        let now = now();
        let is_stream = client.transport.is_stream();
        let socket = self.connections.of(&client).filter(|_| is_stream);
        let is_there = match client.transport {
            Transport::Udp => true,
            Transport::Dtls => self.associations.has(&client),
            Transport::Tcp | Transport::Tls => socket.is_some(),
        };
        if !is_there {
            return;
        }
        match self.server.answered(now, client, message, question, answer) {
            Disposition::Ask => {
                if let Some(question) = self.server.take_question() {
                    return match round + 1 {
                        // What was told is forgotten faster than it is asked for.
                        ROUNDS.. => self.give_up_asking(&parked, question),
                        round => self.ask(Parked { round, ..parked }, question),
                    };
                }
            }
            Disposition::Control => self.carry_out(),
            Disposition::Discard(reason) => self.counters.discard(reason),
            Disposition::Forward(_) | Disposition::Elsewhere { .. } => {}
        }
        match socket {
            Some(socket) if self.joined == Some(socket) => {
                self.joined = None;
                self.join_with(socket, &[]);
            }
            Some(socket) => {
                let has_allocation = self.server.has_allocation(&client);
                self.connections.heard(socket, now.instant, has_allocation);
            }
            None if client.transport == Transport::Dtls => self.heard(now, &client),
            None => {}
        }
    }

    /// Nobody could tell in as many answers as a request may need.
    fn give_up_asking(&mut self, parked: &Parked, question: Question) {
        let _ = self.server.answered(now(), parked.client, &parked.message, question, Answer::Unavailable);
        // It may have another question behind that one, which nobody is asked.
        let _ = self.server.take_question();
        self.carry_out();
    }
}

#[cfg(test)]
mod tests {
    use hairpin_proto::address::{ClientAddr, ServerAddr};

    use super::*;
    use crate::inquiries::Inquiries;

    fn parked(client: &str, number: u16) -> Parked {
        let client = ClientAddr::new(client.parse().unwrap());
        let client = FiveTuple::udp(client, ServerAddr::new(([192, 0, 2, 1], 3478).into()));
        let mut message = [0; HEADER];
        message[HEADER - 2..].copy_from_slice(&number.to_be_bytes());
        Parked { client, message: message.into(), round: 0 }
    }

    #[test]
    fn one_source_address_takes_a_share_of_the_room_and_gives_it_back() {
        let mut waiting = Waiting::new(Inquiries::start(None).unwrap().asker());
        let of = |ip: &str, number: usize| parked(&format!("{ip}:{}", 1000 + number), number as u16);
        for ip in ["192.0.2.7", "[2001:db8::7]"] {
            let numbers: Vec<_> = (0..MOST_OF_SOURCE).map(|at| waiting.park(of(ip, at)).unwrap()).collect();
            assert!(waiting.park(of(ip, MOST_OF_SOURCE)).is_err(), "{ip}");
            assert!(waiting.take(numbers[0]).is_some() && waiting.park(of(ip, 0)).is_ok(), "{ip}");
        }
        assert!(waiting.park(of("[2001:db8::8]", 500)).is_err(), "of the same network");
        assert!(waiting.park(of("192.0.2.8", 500)).is_ok() && waiting.park(of("[2001:db8:0:1::7]", 500)).is_ok());
        for number in 0..waiting.next {
            waiting.take(number);
        }
        assert!(waiting.requests.is_empty() && waiting.by_transaction.is_empty() && waiting.of_source.is_empty());
    }
}
