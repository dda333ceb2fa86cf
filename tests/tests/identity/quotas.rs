//! Quotas over all shards, with thousands of clients at once: no race lets one in too many, or leaves one out.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use hairpin_proto::turn::Credentials;
use hairpin_tests::lab::relay::PORT;
use hairpin_tests::lab::turn::{Client, Refused};
use hairpin_tests::lab::{Folder, Metrics, Namespace};

use crate::bed::{Bed, HOME};

const SECRET: &str = "north";
/// A long time from now.
const LATER: u64 = 4_000_000_000;
/// How many ask at the same time.
const AT_ONCE: usize = 8;

/// Does something with each, so many at once. What comes of it is in their order.
pub(crate) fn race<T: Send, R: Send>(items: &mut [T], act: impl Fn(&mut T) -> R + Sync) -> Vec<R> {
    let share = items.len().div_ceil(AT_ONCE).max(1);
    let act = &act;
    thread::scope(|scope| {
        let parts = items.chunks_mut(share);
        let running: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter_mut().map(act).collect::<Vec<_>>())).collect();
        running.into_iter().flat_map(|part| part.join().expect("none of them panics")).collect()
    })
}

/// A client with a credential that expires at a time of its own, from an address of loopback.
fn minted(host: &Namespace, from: [u8; 4], name: &str, expires: u64) -> Client {
    let (user, password) = Credentials::mint(SECRET, name, expires);
    let server = SocketAddr::new(HOME, PORT);
    Client::new(host, SocketAddr::new(IpAddr::from(from), 0), server, &user, &password)
}

/// Clients made by a number each, in an order in which neighbours have little in common.
fn many(count: usize, make: impl Fn(usize) -> Client + Sync) -> Vec<Client> {
    let mut numbers: Vec<_> = (0..count).collect();
    race(&mut numbers, |number| make(*number))
}

/// How many were refused, all with the same code, and where the others are.
#[track_caller]
fn split(results: &[Result<SocketAddr, Refused>], code: u16) -> (usize, Vec<usize>) {
    let mut refused = 0;
    let mut inside = Vec::new();
    for (number, result) in results.iter().enumerate() {
        match result {
            Ok(_) => inside.push(number),
            Err(Refused(said, reason)) => {
                assert_eq!(*said, code, "{reason}");
                refused += 1;
            }
        }
    }
    (refused, inside)
}

fn start<'n>(host: &'n Namespace, folder: &'n Folder, options: &str) -> Bed<'n> {
    // Room enough for each shard, however the kernel deals out the clients.
    let common = format!("--shards 4 --auth-secret {SECRET} --max-allocations 16000 --mobility");
    Bed::at_home(host, folder, &format!("{common} {options}"))
}

/// What is in use in the realm: allocations, and users that have any.
fn usage(metrics: &Metrics) -> [u64; 2] {
    ["hairpin_realm_allocations", "hairpin_realm_users"].map(|family| metrics.sum(family, &[("realm", "hairpin")]))
}

#[test]
fn a_user_has_as_many_as_one_may_whatever_its_credentials_say() {
    const USERS: usize = 400;
    const EACH: usize = 5;
    const MAY: usize = 3;
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder, &format!("--max-allocations-per-user {MAY}"));
    // The clients of one user are far from each other, so they ask at the same time.
    let mut clients = many(USERS * EACH, |number| {
        let (user, which) = (number % USERS, number / USERS);
        minted(&host, [127, 0, 0, 1], &format!("user-{user}"), LATER + which as u64)
    });
    let (refused, inside) = split(&race(&mut clients, Client::allocate), 486);
    assert_eq!(refused, USERS * (EACH - MAY));
    for user in 0..USERS {
        let own = inside.iter().filter(|number| **number % USERS == user).count();
        assert_eq!(own, MAY, "user-{user}");
    }
    assert_eq!(usage(&bed.metrics()), [(USERS * MAY) as u64, USERS as u64]);
    assert_eq!(bed.refused("user_quota"), refused as u64);

    // One of each is let go of, and then one of each may come, and no more.
    let mut first = vec![None; USERS];
    for number in &inside {
        first[number % USERS] = Some(*number);
    }
    let mut leaving: Vec<_> =
        clients.iter_mut().enumerate().filter(|(number, _)| first.contains(&Some(*number))).map(|(_, c)| c).collect();
    assert!(race(&mut leaving, |client| client.refresh(0)).iter().all(|result| *result == Ok(0)));
    let mut outside: Vec<_> =
        clients.iter_mut().enumerate().filter(|(number, _)| !inside.contains(number)).map(|(_, c)| c).collect();
    let (refused, _) = split(&race(&mut outside, |client| client.allocate()), 486);
    assert_eq!(refused, USERS * (EACH - MAY - 1));
    assert_eq!(usage(&bed.metrics()), [(USERS * MAY) as u64, USERS as u64]);
    bed.text(&["allocations", "close", "--all"]);
    bed.wait_for("nothing is left", |metrics| usage(metrics) == [0, 0]);
    bed.stop();
}

#[test]
fn a_source_has_as_many_as_one_may_whoever_its_users_are() {
    const SOURCES: usize = 100;
    const EACH: usize = 12;
    const MAY: usize = 10;
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder, &format!("--max-allocations-per-source {MAY}"));
    let source = |number: usize| [127, 0, 1, u8::try_from(number % SOURCES).expect("few sources") + 1];
    let mut clients = many(SOURCES * EACH, |number| minted(&host, source(number), &format!("user-{number}"), LATER));
    let (refused, inside) = split(&race(&mut clients, Client::allocate), 508);
    assert_eq!(refused, SOURCES * (EACH - MAY));
    for which in 0..SOURCES {
        assert_eq!(inside.iter().filter(|number| **number % SOURCES == which).count(), MAY, "{:?}", source(which));
    }
    assert_eq!(bed.refused("source_quota"), refused as u64);
    // All of one source go.
    let mut leaving: Vec<_> = clients.iter_mut().enumerate().filter(|(number, _)| number % SOURCES == 7).collect();
    race(&mut leaving, |(number, client)| inside.contains(number).then(|| client.refresh(0).expect("it is there")));
    let mut again: Vec<_> = clients.iter_mut().enumerate().filter(|(number, _)| number % SOURCES == 7).collect();
    let (refused, _) = split(&race(&mut again, |(_, client)| client.allocate()), 508);
    assert_eq!(refused, EACH - MAY);
    bed.stop();
}

#[test]
fn a_realm_has_as_many_as_it_may() {
    const MAY: usize = 1500;
    const OVER: usize = 100;
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder, &format!("--max-realm-allocations {MAY}"));
    let mut clients = many(MAY + OVER, |number| minted(&host, [127, 0, 0, 1], &format!("user-{number}"), LATER));
    let (refused, inside) = split(&race(&mut clients, Client::allocate), 508);
    assert_eq!(refused, OVER);
    assert_eq!(usage(&bed.metrics()), [MAY as u64; 2]);
    assert_eq!(bed.refused("realm_quota"), OVER as u64);
    // Half of those who were left out find room again.
    let mut leaving: Vec<_> =
        clients.iter_mut().enumerate().filter(|(number, _)| inside[..OVER / 2].contains(number)).collect();
    race(&mut leaving, |(_, client)| client.refresh(0).expect("it is there"));
    assert_eq!(usage(&bed.metrics()), [(MAY - OVER / 2) as u64; 2]);
    let mut outside: Vec<_> = clients.iter_mut().enumerate().filter(|(number, _)| !inside.contains(number)).collect();
    let (refused, _) = split(&race(&mut outside, |(_, client)| client.allocate()), 508);
    assert_eq!(refused, OVER / 2);
    assert_eq!(usage(&bed.metrics()), [MAY as u64; 2]);
    bed.stop();
}

#[test]
fn whatever_clients_do_nothing_is_left_of_them_in_the_end() {
    const CLIENTS: usize = 1200;
    const USERS: usize = 60;
    let (host, folder) = (Namespace::new("identity"), Folder::new("identity"));
    let bed = start(&host, &folder, "--max-allocations-per-user 30 --max-realm-allocations 1100");
    let server = SocketAddr::new(HOME, PORT);
    for round in 0..2 {
        let mut clients = many(CLIENTS, |number| {
            minted(&host, [127, 0, 0, 1], &format!("user-{}", number % USERS), LATER + (number + round) as u64)
        });
        let mut numbered: Vec<_> = clients.iter_mut().enumerate().collect();
        let stayed = race(&mut numbered, |(number, client)| {
            let Ok((_, ticket)) = client.allocate_mobile() else { return None };
            let (mut stays, mut sockets) = (true, Vec::new());
            match *number / USERS % 5 {
                // Goes in order.
                0 => stays = client.refresh(0) != Ok(0),
                // Moves, to another shard as likely as not, twice.
                which @ (1 | 2) => {
                    let mut moved = client.elsewhere(&host, SocketAddr::new(HOME, 0), server);
                    let ticket = moved.move_here(&ticket).expect("the ticket is good");
                    let mut moved_again = moved.elsewhere(&host, SocketAddr::new(HOME, 0), server);
                    moved_again.move_here(&ticket).expect("the ticket is good");
                    // And goes from there, or not at all.
                    stays = which == 1 || moved_again.refresh(0) != Ok(0);
                    // Another client at the same address would be taken for it.
                    sockets.extend([moved, moved_again]);
                }
                // Comes again before it has gone.
                3 => assert_eq!(client.allocate().expect_err("it has one").0, 437),
                // Vanishes.
                _ => {}
            }
            Some((stays, sockets))
        });
        let stay = stayed.iter().flatten().filter(|(stays, _)| *stays).count() as u64;
        assert!(stay > CLIENTS as u64 / 3, "{stay}");
        bed.wait_for("those that stay are counted", |metrics| {
            usage(metrics)[0] == stay && metrics.sum("hairpin_allocations", &[]) == stay
        });
        drop((stayed, clients));
        // Those that do not come back are closed, by the user and then all that are left.
        bed.text(&["allocations", "close", "--user", "user-3"]);
        bed.wait_for("one user has nothing", |metrics| usage(metrics)[1] == USERS as u64 - 1);
        bed.text(&["allocations", "close", "--all"]);
        bed.wait_for("nothing is left", |metrics| {
            usage(metrics) == [0, 0] && metrics.sum("hairpin_allocations", &[]) == 0
        });
    }
    // There is as much room as there ever was.
    let mut clients = many(30, |number| minted(&host, [127, 0, 0, 1], "user-1", LATER + number as u64));
    assert!(race(&mut clients, Client::allocate).iter().all(Result::is_ok));
    bed.stop();
}
