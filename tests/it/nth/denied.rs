//! What fails lets nobody in, whichever call of the router it is: no client whose signature is another key's, and no upstream with another host key
//! than the pinned one.

use std::time::Duration;

use nix::libc;

use super::lever::{Callers, Class};
use super::{Series, Stage, TIDY, asked, series};
use crate::login::on_disk;
use crate::raw::{Answer, Client, Key, Login, Offer, Transport};
use crate::world::process::{LIMIT, until};
use crate::world::{Kind, USER, keys};

/// Every so-manyth call: here, so that it takes some seconds, and with `scripts/nth`. Of the calls of the libraries in C that ask for memory
/// `near` has the last ones, which are those of the check.
const CHECKS: [Series; 5] = [
    series("openat", Class::OpenAt, &[("EMFILE", libc::EMFILE)], [1, 1]),
    series("read", Class::Read, &[("EIO", libc::EIO)], [30, 1]),
    Series { callers: Callers::Rust, ..series("malloc-rust", Class::Malloc, &[("ENOMEM", libc::ENOMEM)], [60, 5]) },
    Series { callers: Callers::C, ..series("malloc", Class::Malloc, &[("ENOMEM", libc::ENOMEM)], [900, 90]) },
    Series { callers: Callers::C, ..series("near", Class::Malloc, &[("ENOMEM", libc::ENOMEM)], [17, 1]) },
];

/// How many calls back `near` begins.
const NEAR: u64 = 255;

impl Stage {
    /// Makes one call after the other fail while somebody tries who is not to be let in, which `tries` says; how many there were.
    fn denies(&mut self, what: &str, tries: impl Fn(&Self) -> bool) -> u64 {
        let mut reached = 0;
        let of = usize::from(asked("NTH_EVERY").is_some());
        for series in &CHECKS {
            let mut attempt = |nth| {
                self.lever.arm(series.order(series.errors[0], nth, false));
                let is_in = tries(self);
                // One that ends does so a moment after its client has heard of it.
                let tidy = until(TIDY, || self.world.router.ended().is_some() || self.is_tidy());
                self.lever.disarm();
                assert!(
                    !is_in && (tidy || self.world.router.ended().is_some()),
                    "{what}, {} {nth}: in = {is_in}, tidy = {tidy}",
                    series.name
                );
                if self.world.router.ended().is_some() {
                    self.renew();
                }
                self.lever.counted()
            };
            let (usual, _) = attempt(0);
            let first = if series.name == "near" { usual.saturating_sub(NEAR) } else { 0 };
            for nth in (0..).map(|number| 1 + first + number * series.every[of]) {
                if attempt(nth).1 == 0 {
                    break;
                }
                reached += 1;
            }
        }
        reached
    }

    /// How often the upstream has let the router in.
    fn accepted(&self) -> usize {
        self.world.sshd.process.lines().iter().filter(|line| line.contains("Accepted publickey")).count()
    }
}

#[test]
fn whatever_call_fails_no_signature_and_no_host_key_is_taken_for_the_right_one() {
    let mut stage = Stage::new(Kind::File);
    // libssh leaves a client without an answer when it has no memory for one.
    stage.world.restart(&[("SFTPPROXY_LOGIN_TIMEOUT", "3")]);
    let (right, wrong) = (Key::ed25519(), Key::ed25519());
    stage.world.add_user("mallory", &on_disk(&stage.world, "mallory", &right));
    let log_in = |stage: &Stage, login: &Login<'_>, patience| {
        let answer = || -> std::io::Result<Answer> {
            let mut transport = Transport::dial(("127.0.0.1", stage.world.router.port))?;
            transport.set_patience(patience)?;
            transport.greet("SSH-2.0-raw", &Offer::default())?;
            let mut client = Client::keyed(transport);
            client.service("ssh-userauth")?;
            client.login(login)
        };
        answer().is_ok_and(|answer| answer == Answer::Success)
    };
    assert!(log_in(&stage, &Login::new("mallory", &right), LIMIT), "the right one");
    let clients = stage.denies("a forged signature", |stage| {
        // libssh does not answer.
        log_in(stage, &Login { signer: &wrong, ..Login::new("mallory", &right) }, Duration::from_millis(300))
    });

    let accepted = stage.accepted();
    assert!(accepted > 0, "the upstream does not tell whom it lets in");
    let mut route = stage.world.route();
    route.iter_mut().filter(|(name, _)| *name == "hostkey").for_each(|(_, pin)| *pin = keys::ed25519("other-host").fingerprint());
    stage.world.store.put(USER, &[&keys::ed25519(USER)], &route);
    let upstreams = stage.denies("another host key", |stage| {
        let whole = stage.place.visit(stage.world.router.port).is_ok();
        whole || stage.accepted() > accepted
    });
    println!("{clients} calls failed under a forged signature, {upstreams} under another host key");
    assert!(clients > 10 && upstreams > 10, "{clients}, {upstreams}");
}
