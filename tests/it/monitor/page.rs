//! The page, as a person sees it: in headless Chromium, with a real transfer of 1 GiB running.

use serde_json::Value;

use super::browser::Browser;
use super::{get_with, watched};
use crate::world::clients::installed;
use crate::world::process::{LIMIT, until};
use crate::world::{Kind, USER, keys};

/// What would be markup, if it were taken for it.
const HOSTILE: &str = "<img src=x onerror=document.title='owned'>.tar";

#[test]
fn a_person_sees_the_transfer_of_one_gibibyte_with_its_name_progress_and_rate_on_a_desk_and_on_a_phone() {
    if !installed("chromedriver") || !installed("chromium") {
        return;
    }
    let (world, port) = watched(Kind::File, &[]);
    // Slow enough to be seen midway.
    world.store.put(USER, &[&keys::ed25519(USER)], &[&world.route()[..], &[("download_limit", "24576".to_owned())]].concat());
    world.store.put("bob", &[&keys::ed25519("bob")], &[("remote", "127.0.0.1".to_owned()), ("port", "1".to_owned())]);
    std::fs::File::create(world.sshd.files.join(HOSTILE)).unwrap().set_len(1 << 30).unwrap();
    std::fs::write(world.client().join("small"), vec![7; 3_000_000]).unwrap();
    world.proxied(USER).sftp("put small\n").success();
    assert_ne!(world.proxied("bob").sftp("ls\n").code, 0);
    assert_ne!(world.proxied_with(USER, &keys::ed25519("nobody-knows")).sftp("ls\n").code, 0);
    let others = [("carol", "orders-2026-11.tar"), ("dora", "photos.zip")].map(|(user, name)| {
        world.store.put(user, &[&keys::ed25519(user)], &[&world.route()[..], &[("download_limit", "4096".to_owned())]].concat());
        std::fs::File::create(world.sshd.files.join(name)).unwrap().set_len(1 << 27).unwrap();
        let mut session = world.proxied(user).session();
        session.say(&format!("get {name} /dev/null"));
        session
    });
    let mut session = world.proxied(USER).session();
    session.say("get <* /dev/null");

    let folder = tempfile::tempdir().unwrap();
    let browser = Browser::start(folder.path());
    browser.look((1280, 1000), false);
    browser.go(&format!("http://127.0.0.1:{port}/"));
    let progress = || {
        browser.run(
            "const file = [...document.querySelectorAll('.file')].find(file => file.innerText.includes('onerror')); \
             const bar = file && file.querySelector('.bar.down'); return bar && Number(bar.getAttribute('aria-valuenow'))",
        )
    };
    assert!(until(LIMIT, || progress().as_i64().is_some_and(|percent| percent >= 3)), "{}", browser.text());
    let first = progress().as_i64().unwrap();
    assert!(until(LIMIT, || progress().as_i64().is_some_and(|percent| percent > first)), "it does not move: {}", browser.text());
    let seen = browser.text();
    for part in [HOSTILE, "of 1.00 GiB", "MiB/s", " left", "alice", "127.0.0.1:1", "login", "nobody has this key"] {
        assert!(seen.contains(part), "the page lacks {part}:\n{seen}");
    }
    assert_ne!(browser.run("return document.title"), Value::from("owned"));
    assert_eq!(browser.run("return document.querySelectorAll('main img').length"), Value::from(0));
    assert!(until(LIMIT, || browser.run("return document.querySelectorAll('#plot .edge').length") == 2), "no plot");
    browser.picture("desk-light");
    for (name, size, dark) in
        [("desk-dark", (1280, 1000), true), ("phone-light", (390, 1500), false), ("phone-dark", (390, 1500), true)]
    {
        browser.look(size, dark);
        let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{name} must be scrolled sideways: {wide}");
        let ground = browser.run("return getComputedStyle(document.body).backgroundColor").to_string();
        assert_eq!(ground.contains("20, 22, 26"), dark, "{name}: {ground}");
        browser.picture(name);
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    session.kill();
    others.iter().for_each(crate::world::clients::Session::kill);
}

#[test]
fn the_page_brings_all_it_needs_and_may_ask_nobody_else() {
    let (_world, port) = watched(Kind::File, &[]);
    let (_, head, page) = get_with(port, "/", "");
    assert!(head.contains("Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'"), "{head}");
    for path in ["/page.js", "/page.css", "/icon.svg"] {
        assert!(page.contains(path), "{path}");
        let (status, head, text) = get_with(port, path, "");
        assert!(status == 200 && head.contains("nosniff") && !text.is_empty(), "{head}");
        assert!(!text.replace("http://www.w3.org/2000/svg", "").contains("http"), "{path} names a foreign address");
    }
    assert!(!page.contains("http") && !page.contains("<style") && !page.contains(" onload"), "{page}");
    let (_, _, script) = get_with(port, "/page.js", "");
    assert!(
        !script.contains("innerHTML") && !script.contains("insertAdjacent") && !script.contains("document.write"),
        "{script}"
    );
    let (status, _, state) = get_with(port, "/state.json", "");
    let state: Value = serde_json::from_str(&state).unwrap();
    assert_eq!((status, &state["sessions_open"], &state["store_answers"]), (200, &0.into(), &true.into()));
}
