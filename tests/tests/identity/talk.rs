//! A call that goes on while something happens, and is renewed all the time.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hairpin_client::{AllocateOptions, Client, Credentials, Options, Settings};
use hairpin_tests::lab::call::bind;
use hairpin_tests::lab::{Family, Lab};

use crate::bed::{PATIENCE, wait};

/// Between datagrams of the client.
const PAUSE: Duration = Duration::from_millis(3);
/// Between renewals.
const RENEW: Duration = Duration::from_millis(100);

/// What a call has come to so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    sent: AtomicU64,
    echoed: AtomicU64,
    renewed: AtomicU64,
    failed: AtomicU64,
    is_over: AtomicBool,
}

impl Counts {
    /// Waits until datagrams have come back and renewals were granted that began after this.
    pub(crate) fn go_on(&self, datagrams: u64, renewals: u64) {
        let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let (sent, renewed) = (load(&self.sent), load(&self.renewed));
        wait("the call goes on", || load(&self.echoed) > sent + datagrams && load(&self.renewed) > renewed + renewals);
    }
}

/// Ends the call, also when a test fails.
struct Over<'c>(&'c Counts);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
    }
}

/// Talks to a peer that sends everything back, with some hundred datagrams a second, while something happens. Nothing may
/// be lost, and lifetime, permission and channel must be renewed whenever the client wants it.
pub(crate) fn during(lab: &Lab, server: SocketAddr, credentials: Credentials, happens: impl FnOnce(&Counts)) {
    let counts = Counts::default();
    let peer = bind(&lab.peers[0], SocketAddr::new(Lab::peer_ip(Family::V4, 0), 0));
    let to = peer.local_addr().expect("it is bound");
    let counts = &counts;
    thread::scope(|scope| {
        scope.spawn(move || send_back(&peer, counts));
        let call = scope.spawn(move || {
            let _over = Over(counts);
            lab.clients[0].enter(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(talk(server, credentials, to, counts));
            });
        });
        {
            let _over = Over(counts);
            counts.go_on(50, 3);
            happens(counts);
        }
        call.join().expect("the call does not panic");
    });
    let [sent, echoed, renewed, failed] =
        [&counts.sent, &counts.echoed, &counts.renewed, &counts.failed].map(|count| count.load(Ordering::SeqCst));
    println!("{sent} datagrams, {echoed} came back, {renewed} renewals, {failed} failed");
    assert_eq!((echoed, failed), (sent, 0), "nothing is lost, and no renewal fails");
}

fn send_back(peer: &UdpSocket, counts: &Counts) {
    peer.set_read_timeout(Some(Duration::from_millis(100))).expect("a valid time");
    let mut buffer = [0; 2048];
    // The last ones may come back after the client has stopped sending.
    let is_over = || {
        let [sent, echoed] = [&counts.sent, &counts.echoed].map(|count| count.load(Ordering::SeqCst));
        counts.is_over.load(Ordering::SeqCst) && sent == echoed
    };
    let mut quiet = Instant::now();
    while !is_over() {
        if let Ok((length, from)) = peer.recv_from(&mut buffer) {
            peer.send_to(&buffer[..length], from).expect("the way to the relay is open");
            quiet = Instant::now();
        } else if quiet.elapsed() > PATIENCE {
            return;
        }
    }
}

async fn talk(server: SocketAddr, credentials: Credentials, peer: SocketAddr, counts: &Counts) {
    let settings = Settings { credentials: Some(credentials), ..Settings::default() };
    let client = Client::connect(server, Options { settings, ..Options::default() }).await.expect("a socket");
    let client = Arc::new(client);
    client.allocate(AllocateOptions::default()).await.expect("the user is known");
    let channel = client.bind_channel(peer).await.expect("the peer is allowed");
    let renewing = {
        let client = Arc::clone(&client);
        async move {
            while !counts.is_over.load(Ordering::SeqCst) {
                let renewed = [
                    client.refresh(Some(Duration::from_secs(700))).await.map(drop),
                    client.create_permission(&[peer]).await,
                    client.bind_channel_number(channel, peer).await,
                ];
                for result in renewed {
                    let count = match result {
                        Ok(()) => &counts.renewed,
                        Err(error) => {
                            println!("a renewal failed: {error}");
                            &counts.failed
                        }
                    };
                    count.fetch_add(1, Ordering::SeqCst);
                }
                tokio::time::sleep(RENEW).await;
            }
        }
    };
    let sending = async {
        while !counts.is_over.load(Ordering::SeqCst) {
            let number = counts.sent.fetch_add(1, Ordering::SeqCst);
            client.send(peer, &number.to_be_bytes()).await.expect("the way to the relay is open");
            tokio::time::sleep(PAUSE).await;
        }
    };
    let receiving = async {
        let mut expected = 0;
        loop {
            let limit = Duration::from_secs(2);
            match tokio::time::timeout(limit, client.recv()).await {
                Ok(Ok(datagram)) => {
                    let number = u64::from_be_bytes(datagram.payload.try_into().expect("what was sent"));
                    assert_eq!(number, expected, "one is missing, or came twice");
                    expected += 1;
                    counts.echoed.store(expected, Ordering::SeqCst);
                }
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => break,
            }
            if counts.is_over.load(Ordering::SeqCst) && counts.sent.load(Ordering::SeqCst) == expected {
                break;
            }
        }
    };
    tokio::join!(renewing, sending, receiving);
    client.release().await.expect("the allocation is there");
}
