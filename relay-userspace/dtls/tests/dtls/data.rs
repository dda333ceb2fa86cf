//! Application data, and what must not end a session.

use std::collections::HashSet;

use hairpin_dtls::{Error, MAX_PLAINTEXT};

use crate::network::{Faults, Network, Random, SOON, drain, read};
use crate::pki;

fn established() -> Network {
    Network::established(&pki::client(), "turn.example.org", &pki::rsa().server())
}

#[test]
fn each_plaintext_is_one_datagram_in_both_directions() {
    let mut network = established();
    for plaintext in [&b"first"[..], b"second", &[3; 1200]] {
        network.client.send(plaintext).unwrap();
        network.server().send(plaintext).unwrap();
    }
    let sent = drain(&mut network.client);
    // Record header, explicit nonce and tag.
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [5 + 37, 6 + 37, 1200 + 37]);
    for datagram in &sent {
        network.server().receive(datagram).unwrap();
    }
    assert_eq!(read(network.server()), [b"first".to_vec(), b"second".to_vec(), vec![3; 1200]]);
    network.carry();
    assert_eq!(read(&mut network.client), [b"first".to_vec(), b"second".to_vec(), vec![3; 1200]]);
    assert!(read(&mut network.client).is_empty());
}

#[test]
fn two_records_in_one_datagram_are_two_plaintexts() {
    let mut network = established();
    network.client.send(b"first").unwrap();
    network.client.send(b"second").unwrap();
    let datagram = drain(&mut network.client).concat();
    network.server().receive(&datagram).unwrap();
    // An answer between the two must not disturb what has not been read.
    let mut buffer = Box::new([0; MAX_PLAINTEXT]);
    assert_eq!(network.server().next_plaintext(&mut buffer), Some(5));
    network.server().send(b"answer").unwrap();
    assert_eq!(network.server().next_plaintext(&mut buffer), Some(6));
    assert_eq!(&buffer[..6], b"second");
    assert_eq!(network.server().next_plaintext(&mut buffer), None);
    network.carry();
    assert_eq!(read(&mut network.client), [b"answer"]);
}

#[test]
fn the_longest_plaintext_passes_and_a_longer_one_is_refused() {
    let mut network = established();
    let longest: Vec<_> = (0..MAX_PLAINTEXT).map(|index| index as u8).collect();
    network.client.send(&longest).unwrap();
    let refused = network.client.send(&vec![0; MAX_PLAINTEXT + 1]);
    assert_eq!(refused, Err(Error::TooLong { len: MAX_PLAINTEXT + 1, limit: MAX_PLAINTEXT }));
    network.client.send(b"after").unwrap();
    network.client.send(b"").unwrap();
    network.carry();
    assert_eq!(read(network.server()), [longest, b"after".to_vec()]);
}

#[test]
fn nothing_is_sent_before_and_after_the_session() {
    let mut network = Network::new(&pki::client(), "turn.example.org", &pki::rsa().server(), Faults::default(), 0);
    assert_eq!(network.client.send(b"early"), Err(Error::NotEstablished));
    network.run_handshake();
    network.client.close();
    assert_eq!(network.client.send(b"late"), Err(Error::Closed));
}

#[test]
fn data_arrives_at_most_once_and_unchanged_over_a_bad_network() {
    for seed in 0..10 {
        let faults = Faults { lost: 10, repeated: 30, shuffled: 30 };
        let mut network = Network::new(&pki::client(), "turn.example.net", &pki::ecdsa().server(), faults, seed);
        network.run_handshake();
        let (mut sent, mut received) = (HashSet::new(), Vec::new());
        for round in 0..20_u32 {
            for number in 0..10_u32 {
                let plaintext = [round.to_be_bytes(), number.to_be_bytes()].concat();
                network.client.send(&plaintext).unwrap();
                sent.insert(plaintext);
            }
            network.carry();
            received.extend(read(network.server()));
        }
        let unique: HashSet<_> = received.iter().cloned().collect();
        assert_eq!(unique.len(), received.len(), "seed {seed}: a record was taken twice");
        assert!(unique.is_subset(&sent), "seed {seed}");
        // 200 less a tenth.
        assert!(unique.len() > 120, "seed {seed}: {}", unique.len());
        assert!(network.is_established(), "seed {seed}");
    }
}

#[test]
fn data_that_overtakes_the_end_of_a_handshake_is_not_lost() {
    let mut network = Network::new(&pki::client(), "turn.example.org", &pki::rsa().server(), Faults::default(), 0);
    // The server is established first, since it hears the client's last flight and answers.
    while !network.server.as_ref().is_some_and(hairpin_dtls::Session::is_established) {
        network.carry();
    }
    let finished = drain(network.server());
    network.server().send(b"early").unwrap();
    let early = drain(network.server());
    assert!(!network.client.is_established());
    for datagram in early.iter().chain(&finished) {
        network.client.receive(datagram).unwrap();
    }
    assert!(network.client.is_established());
    assert_eq!(read(&mut network.client), [b"early"]);
}

#[test]
fn a_lost_last_flight_is_sent_again_when_the_client_asks() {
    let mut network = Network::new(&pki::client(), "turn.example.org", &pki::rsa().server(), Faults::default(), 0);
    network.client = pki::client().with_first_timeout(SOON).connect("turn.example.org").unwrap();
    while !network.server.as_ref().is_some_and(hairpin_dtls::Session::is_established) {
        network.carry();
    }
    assert!(!drain(network.server()).is_empty());
    std::thread::sleep(network.client.poll_timeout().unwrap());
    network.client.handle_timeout().unwrap();
    let again = drain(&mut network.client);
    assert!(!again.is_empty());
    for datagram in &again {
        network.server().receive(datagram).unwrap();
    }
    // Reading is what makes the server look at it.
    assert!(read(network.server()).is_empty());
    network.carry();
    assert!(network.client.is_established());
}

#[test]
fn garbage_and_replays_do_not_end_a_session() {
    let mut network = established();
    network.client.send(b"once").unwrap();
    let genuine = drain(&mut network.client).remove(0);
    network.server().receive(&genuine).unwrap();
    assert_eq!(read(network.server()), [b"once"]);

    let mut random = Random(1);
    for round in 0..5000_u32 {
        let mut datagram = genuine.clone();
        match round % 5 {
            0 => {}
            1 => datagram = (0..random.below(200)).map(|_| random.next() as u8).collect(),
            2 => {
                let position = random.below(datagram.len() as u64) as usize;
                datagram[position] ^= 1 << random.below(8);
            }
            3 => datagram.truncate(random.below(datagram.len() as u64) as usize),
            // A header that could be: any content type, epoch and length.
            _ => {
                datagram[0] = 19 + random.below(6) as u8;
                datagram[4] = random.below(3) as u8;
                datagram[10] = random.next() as u8;
                datagram.resize(13 + random.below(60) as usize, round as u8);
                datagram[12] = (datagram.len() - 13) as u8;
            }
        }
        network.server().receive(&datagram).unwrap();
        assert!(read(network.server()).is_empty(), "round {round}: {datagram:02x?}");
        assert!(!network.server().is_closed(), "round {round}: {datagram:02x?}");
    }
    assert!(drain(network.server()).is_empty(), "nobody is answered");
    network.client.send(b"still here").unwrap();
    network.carry();
    assert_eq!(read(network.server()), [b"still here"]);
    network.server().send(b"so am I").unwrap();
    network.carry();
    assert_eq!(read(&mut network.client), [b"so am I"]);
}

#[test]
fn garbage_does_not_end_a_handshake() {
    let mut network = Network::new(&pki::client(), "turn.example.org", &pki::rsa().server(), Faults::default(), 0);
    let mut random = Random(2);
    while !network.is_established() {
        network.carry();
        for round in 0..200 {
            let mut datagram: Vec<_> = (0..random.below(100)).map(|_| random.next() as u8).collect();
            // Records of types that have no place in a handshake, in the clear; and of the next epoch, which wait.
            if round % 2 == 0 && datagram.len() > 13 {
                let len = datagram.len() as u8 - 13;
                let types = [0, 19, 23, 24, 255];
                datagram[..5].copy_from_slice(&[types[random.below(5) as usize], 254, 253, 0, 0]);
                datagram[11..13].copy_from_slice(&[0, len]);
            }
            for session in [Some(&mut network.client), network.server.as_mut()].into_iter().flatten() {
                session.receive(&datagram).unwrap();
            }
        }
    }
    network.client.send(b"done").unwrap();
    network.carry();
    assert_eq!(read(network.server()), [b"done"]);
}

#[test]
fn a_close_is_heard_and_answered() {
    let mut network = established();
    network.client.send(b"last words").unwrap();
    network.client.close();
    assert!(network.client.is_closed());
    network.carry();
    assert_eq!(read(network.server()), [b"last words"]);
    assert!(network.server().is_closed());
    assert_eq!(network.server().receive(b""), Err(Error::Closed));
    // close_notify, in a record under keys.
    let answer = drain(network.server());
    assert_eq!(answer.iter().map(|datagram| datagram[0]).collect::<Vec<_>>(), [21]);
}

#[test]
fn a_close_in_the_clear_is_nobodys() {
    let mut network = established();
    // close_notify and a fatal alert, of epoch 0.
    for alert in [[1, 0], [2, 40]] {
        let datagram = [&[21, 254, 253, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2][..], &alert].concat();
        network.server().receive(&datagram).unwrap();
        assert!(read(network.server()).is_empty());
        assert!(network.server().is_established());
    }
}

#[test]
fn a_session_may_move_between_threads() {
    let mut network = established();
    network.client.send(b"north").unwrap();
    let datagrams = drain(&mut network.client);
    let mut server = network.server.take().unwrap();
    let plaintexts = std::thread::spawn(move || {
        for datagram in datagrams {
            server.receive(&datagram).unwrap();
        }
        read(&mut server)
    });
    assert_eq!(plaintexts.join().unwrap(), [b"north"]);
}
