//! Admission by the clock and the dice of the tests, and in every order that shuttle makes of threads.

use super::*;
use crate::config::Config;
use crate::error::{Fault, Side, Stage};
use crate::order::explored::explore;

/// Orders of threads that are tried of each test that has some.
const SCHEDULES: usize = 300;

fn terms(given: &[(&str, &str)]) -> Terms {
    let get = |flag: &str| given.iter().find(|(name, _)| *name == flag).map(|(_, value)| (*value).to_owned());
    Config::parse(&get, &|_| None).unwrap().admission
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

const A: &str = "203.0.113.1";
const B: &str = "203.0.113.2";

#[test]
fn places_are_limited_and_come_back_on_every_path() {
    let admission = Admission::new(terms(&[("max-sessions", "3"), ("max-startups", "2")]));
    let now = Instant::now();
    let admit = || admission.admit(Some(address(A)), now, 0);
    let (mut one, two) = (admit().unwrap(), admit().unwrap());
    assert_eq!(admit().unwrap_err(), Refusal::Startups(2));
    one.proven();
    one.proven();
    let three = admit().unwrap();
    assert_eq!(three.sessions, 3);
    assert_eq!(admit().unwrap_err(), Refusal::Sessions(3));
    drop((one, two, three));
    assert_empty(&admission);
    let refused = admission.figures().refused;
    assert_eq!((refused[0], refused[1]), (1, 1));
}

#[track_caller]
fn assert_empty(admission: &Admission) {
    let state = admission.lock();
    assert_eq!((state.sessions, state.startups, state.sources.len(), state.users.len()), (0, 0, 0, 0));
}

#[test]
fn startups_are_dropped_by_chance_the_more_the_nearer_the_limit() {
    let terms = Startups::parse("10:30:100").unwrap();
    for (startups, dice, refused) in
        [(9, 0, false), (10, 29, true), (10, 30, false), (55, 64, true), (55, 65, false), (99, 98, true), (100, 99, true)]
    {
        assert_eq!(check_startups(terms, startups, dice).is_err(), refused, "{startups} {dice}");
    }
    let hard = Startups::parse("10").unwrap();
    assert_eq!((check_startups(hard, 9, 0), check_startups(hard, 10, 99)), (Ok(()), Err(Refusal::Startups(10))));
}

#[test]
fn a_source_is_a_block_and_has_limits_of_its_own() {
    let admission = Admission::new(terms(&[("max-source-sessions", "2"), ("max-source-startups", "1")]));
    let now = Instant::now();
    let admit = |from: &str| admission.admit(Some(address(from)), now, 0);
    let mut one = admit("2001:db8::1").unwrap();
    assert!(matches!(admit("2001:db8::ffff").unwrap_err(), Refusal::SourceStartups(_, 1)));
    let _other = admit("2001:db8:0:1::1").unwrap();
    one.proven();
    let mut two = admit("2001:db8::2").unwrap();
    two.proven();
    assert!(matches!(admit("2001:db8::3").unwrap_err(), Refusal::SourceSessions(_, 2)));
    drop(one);
    admit("2001:db8::3").unwrap();
    // Who is known only later counts from then on.
    let _two = two;
    let mut three = admission.admit(None, now, 0).unwrap();
    assert_eq!(three.locate(address("2001:db8::4"), now), Ok(()));
    let mut four = admission.admit(None, now, 0).unwrap();
    assert!(matches!(four.locate(address("2001:db8::5"), now).unwrap_err(), Refusal::SourceSessions(_, 2)));
}

#[test]
fn a_user_has_as_many_sessions_as_the_record_or_the_setting_says() {
    let admission = Admission::new(terms(&[("max-user-sessions", "1")]));
    let (alice, bob) = (UserName::new("alice").unwrap(), UserName::new("bob").unwrap());
    let permit = || admission.admit(Some(address(A)), Instant::now(), 0).unwrap();
    let (mut one, mut two, mut three) = (permit(), permit(), permit());
    assert_eq!(one.count_user(&alice, None), Ok(()));
    assert_eq!(two.count_user(&alice, None), Err(Refusal::UserSessions(1)));
    assert_eq!(admission.check_user(&alice, None), Err(Refusal::UserSessions(1)));
    assert_eq!(two.count_user(&alice, Some(2)), Ok(()));
    assert_eq!(three.count_user(&alice, Some(2)), Err(Refusal::UserSessions(2)));
    assert_eq!(three.count_user(&bob, None), Ok(()));
    drop((one, two));
    assert_eq!(admission.check_user(&alice, None), Ok(()));
    drop(three);
    assert_empty(&admission);
}

#[test]
fn networks_are_let_in_or_kept_out_before_anything_is_counted() {
    let admission = Admission::new(terms(&[("allow-from", "203.0.113.0/24"), ("deny-from", "203.0.113.2")]));
    let now = Instant::now();
    assert_eq!(admission.check(address(A), now), Ok(()));
    assert_eq!(admission.check(address("::ffff:203.0.113.2"), now), Err(Refusal::Denied));
    assert_eq!(admission.check(address("198.51.100.1"), now), Err(Refusal::NotAllowed));
    assert_eq!(admission.admit(Some(address(B)), now, 0).unwrap_err().name(), "denied");
    assert_empty(&admission);
}

#[test]
fn faults_add_up_to_a_ban_that_ends_and_one_alone_costs_nothing() {
    let admission = Admission::new(terms(&[("penalties", "authfail:5s min:15s max:20s")]));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let fault = |from, seconds| admission.penalise(address(from), Class::AuthFail, at(seconds)).unwrap();
    assert_eq!(fault(A, 0), Sentence { owed: Duration::from_secs(5), refused: false });
    assert_eq!(admission.check(address(A), at(0)), Ok(()));
    // Over before the next one comes.
    assert!(!fault(A, 6).refused && !fault(A, 6).refused);
    assert_eq!(fault(A, 6), Sentence { owed: Duration::from_secs(15), refused: true });
    assert!(matches!(admission.check(address(A), at(7)), Err(Refusal::Penalty(_, Class::AuthFail, _))));
    assert_eq!(admission.check(address(B), at(7)), Ok(()));
    // Once refused it is so to the end, and never longer than the most.
    assert!(admission.check(address(A), at(20)).is_err());
    for _ in 0..10 {
        assert!(fault(A, 20).owed <= Duration::from_secs(20));
    }
    assert_eq!(admission.check(address(A), at(40)), Ok(()));
}

#[test]
fn private_networks_owe_nothing_unless_somebody_wants_it() {
    let now = Instant::now();
    let costs =
        |given: &[(&str, &str)], from| Admission::new(terms(given)).penalise(address(from), Class::AuthFail, now).is_some();
    for from in ["127.0.0.1", "::1", "10.1.2.3", "172.17.0.1", "192.168.1.1", "fd00::1", "fe80::1", "::ffff:10.0.0.1"] {
        assert!(!costs(&[], from), "{from}");
        assert!(costs(&[("penalty-exempt", "none")], from), "{from}");
    }
    assert!(costs(&[], A));
    assert!(!costs(&[("penalties", "off")], A));
}

#[test]
fn tables_of_penalties_stay_as_small_as_they_are_set() {
    let now = Instant::now();
    for overflow in ["permissive", "deny-all"] {
        let words = format!("min:0 max-sources6:100 overflow:{overflow}");
        let admission = Admission::new(terms(&[("penalties", &words)]));
        admission.penalise(address(A), Class::AuthFail, now);
        // Every /64 of a /32.
        for number in 0..20_000_u32 {
            let from = std::net::Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(number) << 64));
            let permit = admission.admit(Some(from.into()), now, 0);
            drop(permit);
            admission.penalise(from.into(), Class::AuthFail, now + Duration::from_millis(number.into()));
        }
        assert_eq!(admission.figures().penalties, 101, "{overflow}");
        assert_eq!(admission.figures().sources, 0);
        // The flood of one family is none of the other's business.
        assert!(matches!(admission.check(address(A), now), Err(Refusal::Penalty(..))));
        let stranger = admission.check(address("2001:db9::1"), now);
        assert_eq!(stranger, if overflow == "permissive" { Ok(()) } else { Err(Refusal::PenaltiesFull) });
        assert_eq!(admission.check(address(B), now), Ok(()));
    }
}

#[test]
fn what_a_node_refuses_is_told_once_and_forgiven_when_somebody_takes_it_away() {
    let admission = Admission::new(terms(&[("penalties", "min:5s")]));
    let now = Instant::now();
    let source = admission.terms().blocks.source(address(A));
    admission.penalise(address(A), Class::AuthFail, now);
    let unshared = admission.unshared(now);
    assert_eq!(unshared, [Ban { network: source, left: Some(Duration::from_secs(5)), why: "authfail".into() }]);
    // The store did not answer: it is refused here all the same.
    admission.learn(&[], now);
    assert!(admission.check(address(A), now).is_err());
    admission.shared(source);
    assert_eq!(admission.unshared(now), []);
    admission.learn(&unshared, now);
    assert!(admission.check(address(A), now).is_err());
    admission.learn(&[], now);
    assert_eq!(admission.check(address(A), now), Ok(()));
}

#[test]
fn bans_hold_for_networks_of_any_size_until_they_end() {
    let admission = Admission::new(terms(&[]));
    let now = Instant::now();
    let ban = |network: &str, left| Ban { network: network.parse().unwrap(), left, why: "x".into() };
    let minute = Duration::from_secs(60);
    admission.learn(&[ban("203.0.0.0/16", Some(minute)), ban("2001:db8::/32", None), ban("203.0.113.1/32", None)], now);
    assert_eq!(admission.check(address(B), now), Err(Refusal::Banned("203.0.0.0/16".parse().unwrap())));
    assert_eq!(admission.check(address(B), now + minute), Ok(()));
    assert!(admission.check(address(A), now + minute).is_err());
    assert!(admission.check(address("2001:db8:ffff::1"), now + 100 * minute).is_err());
    assert_eq!(admission.check(address("2001:db9::1"), now), Ok(()));
}

#[test]
fn only_what_a_client_is_proven_to_have_done_is_its_fault() {
    let came = Came::default();
    for (side, stage, came, class) in [
        (Side::Downstream, Stage::Prove, Came { refused: 3, ..came }, Some(Class::AuthFail)),
        // One wrong key of several: the right one came.
        (Side::Downstream, Stage::Relay, Came { refused: 1, proven: true, ..came }, None),
        (Side::Downstream, Stage::Open, Came { proven: true, late: true, ..came }, None),
        (Side::Store, Stage::Prove, Came { refused: 3, ..came }, None),
        (Side::Store, Stage::Find, Came { proven: true, ..came }, None),
        (Side::Upstream, Stage::Dial, Came { proven: true, ..came }, None),
        (Side::Router, Stage::Relay, came, None),
        (Side::Downstream, Stage::Accept, came, None),
        (Side::Downstream, Stage::Exchange, came, Some(Class::NoAuth)),
        (Side::Downstream, Stage::Exchange, Came { late: true, ..came }, Some(Class::GraceExceeded)),
        (Side::Downstream, Stage::Prove, Came { late: true, slow: true, ..came }, None),
    ] {
        assert_eq!(blame(&Fault::new(side, stage, "x"), came), class, "{side} {stage} {came:?}");
    }
}

#[test]
fn names_of_refusals_are_all_different() {
    let names: std::collections::BTreeSet<_> = Refusal::NAMES.into_iter().collect();
    assert_eq!(names.len(), Refusal::COUNT);
    assert_eq!(Refusal::ProxyHeader(String::new()).name(), "proxy-header");
}

#[test]
fn in_every_order_of_threads_no_limit_is_passed_and_every_place_comes_back() {
    let limits = [
        ("max-sessions", "3"),
        ("max-startups", "2"),
        ("max-source-sessions", "2"),
        ("max-user-sessions", "1"),
        ("penalties", "min:1s"),
    ];
    let terms = terms(&limits);
    let lives = move || {
        let admission = Admission::new(terms.clone());
        let (now, alice) = (Instant::now(), UserName::new("alice").unwrap());
        let life = |number: u32, admission: Arc<Admission>, alice: UserName| {
            move || {
                let from = [A, B, "2001:db8::1"][number as usize % 3];
                let Ok(mut permit) = admission.admit(number.is_multiple_of(2).then(|| address(from)), now, number) else {
                    return;
                };
                let mut go_on = || {
                    permit.locate(address(from), now)?;
                    if number == 4 {
                        // It leaves without having proven anything.
                        return Ok(());
                    }
                    permit.proven();
                    permit.count_user(&alice, None)?;
                    let figures = admission.figures();
                    assert!(figures.sessions <= 3 && figures.startups <= 2 && figures.sources <= 3, "{figures:?}");
                    Ok::<_, Refusal>(())
                };
                if go_on().is_err() {
                    admission.penalise(address(from), Class::NoAuth, now);
                }
                drop(permit);
            }
        };
        let threads: Vec<_> =
            (0..6).map(|number| shuttle::thread::spawn(life(number, Arc::clone(&admission), alice.clone()))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_empty(&admission);
    };
    explore(SCHEDULES, lives);
}
