//! What people do with files, done twice by the same script: straight at the upstream's sshd, and through the proxy. The client's
//! output, its files and the upstream's files must be the same.

use std::path::Path;
use std::time::Duration;

use crate::world::clients::{Target, installed};
use crate::world::process::Output;
use crate::world::tree::{big_file, hash, listing, small_file};
use crate::world::{Setup, USER, World};

/// Time for a file of hundreds of megabytes on a busy machine with an unoptimised build.
const LONG: Duration = Duration::from_secs(600);

/// What a script leaves behind.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    code: i32,
    output: Vec<String>,
    client: Vec<String>,
    upstream: Vec<String>,
}

/// Runs the script direct and proxied, each time with fresh folders (`prepare` is given the client's and the upstream's), and
/// compares all that can be seen. Returns it.
#[track_caller]
fn same(world: &World, prepare: impl Fn(&Path, &Path), script: impl Fn(&Target) -> Output) -> Seen {
    let seen = |target: &Target| {
        world.sshd.wipe();
        std::fs::remove_dir_all(world.client()).unwrap();
        std::fs::create_dir(world.client()).unwrap();
        prepare(&world.client(), &world.sshd.files);
        let output = script(target);
        let text = format!("{}\n{}", output.stdout, output.stderr);
        let output_lines = text.lines().map(|line| masked(line, target)).filter(|line| !line.is_empty()).collect();
        let (client, upstream) = (listing(&world.client()), listing(&world.sshd.files));
        Seen { code: output.code, output: output_lines, client, upstream }
    };
    let direct = seen(&world.direct());
    let proxied = seen(&world.proxied(USER));
    assert_eq!(direct.code, 0, "the script fails without the proxy: {:#?}", direct.output);
    for (what, direct, proxied) in [
        ("output", &direct.output, &proxied.output),
        ("client's files", &direct.client, &proxied.client),
        ("upstream's files", &direct.upstream, &proxied.upstream),
    ] {
        let differs = |(a, b): (&String, &String)| a != b;
        let at = direct.iter().zip(proxied).position(differs).unwrap_or(direct.len().min(proxied.len()));
        assert!(direct == proxied, "{what} differ at line {at}:\ndirect  {:?}\nproxied {:?}", direct.get(at), proxied.get(at));
    }
    assert_eq!(proxied.code, 0);
    proxied
}

/// A line without what may differ between two runs: the target's port and user, and times of day.
fn masked(line: &str, target: &Target) -> String {
    let line = line
        .replace(&format!("{}@", target.user), "USER@")
        .replace(&format!("\"{}\"", target.user), "USER")
        .replace(&target.port.to_string(), "PORT");
    let time = |word: &str| word.len() == 5 && word.as_bytes()[2] == b':';
    let mut words: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        // `27  2026` instead of `27 13:15`: ls takes a file for one of another year when its time is ahead of the clock, if by a tick.
        let year = word.len() == 4 && word.starts_with("20") && matches!(words[..], [.., day, ""] if day.parse::<u8>().is_ok());
        if year {
            words.pop();
        }
        words.push(if year || time(word) { "TIME" } else { word });
    }
    words.join(" ")
}

#[track_caller]
fn assert_has(lines: &[String], pattern: &str) {
    assert!(lines.iter().any(|line| line.contains(pattern)), "no \"{pattern}\" in {lines:#?}");
}

#[test]
fn sftp_puts_gets_renames_and_removes_the_same_direct_and_proxied() {
    let prepare = |client: &Path, upstream: &Path| {
        small_file(&client.join("one"), 100_000, 1);
        small_file(&client.join("empty"), 0, 1);
        small_file(&upstream.join("with blank"), 40_001, 2);
        small_file(&upstream.join("doomed"), 10, 3);
    };
    let seen = same(&World::start(), prepare, |target| {
        target.sftp(
            "pwd\nput one\nput empty folder-less\nget \"with blank\" two\nget folder-less nothing\nrename one renamed\nmkdir sub\n\
             mkdir sub/deep\nmkdir doomed-folder\nrmdir doomed-folder\nrm doomed\nchmod 640 renamed\nput one sub/deep/three\n\
             symlink renamed link\nln renamed hard\ncd sub/deep\npwd\nls\ncd ..\nls -la\ncd /\npwd\n-rm missing\n-get missing\n-rmdir /nothing\n\
             -mkdir /proc/no\n",
        )
    });
    for entry in
        ["renamed 100640 100000 bytes", "link 120777 -> renamed", "sub/deep/three 100644 100000 bytes", "hard 100640 1000"]
    {
        assert_has(&seen.upstream, entry);
    }
    assert_has(&seen.client, "two 100644 40001 bytes");
    assert!(!seen.upstream.iter().any(|line| line.contains("doomed")), "{seen:#?}");
}

#[test]
fn sftp_lists_the_same_direct_and_proxied() {
    let prepare = |_: &Path, upstream: &Path| {
        std::fs::create_dir(upstream.join("sub")).unwrap();
        for (name, size) in [("a", 1), ("ünï", 22), ("with blank", 333), ("sub/inner", 4444)] {
            small_file(&upstream.join(name), size, 1);
        }
        std::os::unix::fs::symlink("a", upstream.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", upstream.join("dangling")).unwrap();
    };
    let seen = same(&World::start(), prepare, |target| {
        target.sftp("ls\nls -1\nls -l\nls -la\nls -n sub\nls *\nls link\nls -l dangling\n")
    });
    assert_has(&seen.output, "inner");
}

#[test]
fn sftp_resumes_both_ways_the_same_direct_and_proxied() {
    let prepare = |client: &Path, upstream: &Path| {
        small_file(&client.join("whole"), 3_000_000, 1);
        small_file(&upstream.join("source"), 2_500_000, 2);
        let part = |from: &Path, to: &Path, count: usize| std::fs::write(to, &std::fs::read(from).unwrap()[..count]).unwrap();
        part(&client.join("whole"), &upstream.join("half"), 1_234_567);
        part(&upstream.join("source"), &client.join("part"), 1_000_001);
    };
    let world = World::start();
    let seen = same(&world, prepare, |target| target.sftp("reput whole half\nreget source part\n"));
    assert_has(&seen.upstream, "half 100644 3000000 bytes");
    assert_eq!(hash(&world.client().join("part")), hash(&world.sshd.files.join("source")));
    assert_eq!(hash(&world.client().join("whole")), hash(&world.sshd.files.join("half")));
}

#[test]
fn df_tells_of_the_same_file_system_direct_and_proxied() {
    let world = World::start();
    // Free space moves while tests run; the size of the file system does not.
    let size = |target: &Target| {
        let output = target.sftp("df\n").success();
        let line = output.lines().find(|line| line.trim_start().starts_with(|first: char| first.is_ascii_digit()));
        line.unwrap_or_else(|| panic!("no numbers: {output}")).split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(size(&world.direct()), size(&world.proxied(USER)));
}

#[test]
fn ten_thousand_files_are_listed_the_same_direct_and_proxied() {
    let prepare = |_: &Path, upstream: &Path| {
        for number in 0..10_000 {
            std::fs::File::create(upstream.join(format!("a-file-with-a-longer-name-{number:05}"))).unwrap();
        }
    };
    let seen = same(&World::start(), prepare, |target| target.sftp("ls -1\nls -ln\n"));
    assert_eq!(seen.output.iter().filter(|line| line.contains("a-file-with")).count(), 20_000);
}

#[test]
fn a_tree_of_a_thousand_files_goes_there_and_back_with_sftp() {
    let seen = same(
        &World::start(),
        |client, _| thousand_files(&client.join("tree")),
        |target| target.sftp("put -r tree\nget -r tree back\n"),
    );
    assert_eq!(seen.upstream.len(), 1_000 + 20 + 1);
    assert_eq!(seen.client.len(), 2 * seen.upstream.len());
}

/// 1,000 files in 20 folders.
fn thousand_files(folder: &Path) {
    for number in 0..1_000_u32 {
        let sub = folder.join(format!("sub{}", number % 20));
        std::fs::create_dir_all(&sub).unwrap();
        small_file(&sub.join(format!("file{number}")), number as usize * 3, number + 1);
    }
}

#[test]
fn scp_copies_the_same_direct_and_proxied() {
    let prepare = |client: &Path, upstream: &Path| {
        small_file(&client.join("one"), 1_000_000, 1);
        small_file(&upstream.join("there"), 70_000, 2);
        std::fs::create_dir_all(client.join("tree/sub")).unwrap();
        small_file(&client.join("tree/sub/leaf"), 5_000, 3);
    };
    let world = World::start();
    // -s: SFTP, which is the default from OpenSSH 9 on.
    for arguments in [&["-s", "one", "@:copied"][..], &["-s", "-p", "@:there", "got"], &["-s", "-r", "tree", "@:."]] {
        same(&world, prepare, |target| target.scp(arguments));
    }
    assert_has(&listing(&world.sshd.files), "tree/sub/leaf");
}

#[test]
fn lftp_works_the_same_direct_and_proxied() {
    if !installed("lftp") {
        return;
    }
    let prepare = |client: &Path, upstream: &Path| {
        small_file(&client.join("one"), 300_000, 1);
        small_file(&upstream.join("there"), 200_000, 2);
        small_file(&client.join("empty"), 0, 1);
        thousand_files(&client.join("tree"));
    };
    let seen = same(&World::start(), prepare, |target| {
        target.lftp(
            "put one\nput empty\nget there -o got\nmkdir sub\nmv one sub/moved\nchmod 600 sub/moved\nmirror -R --parallel=4 tree tree\n\
             mirror --parallel=4 tree back\ncls -1 sub\nrm there",
        )
    });
    assert_has(&seen.upstream, "sub/moved 100600 300000 bytes");
    assert_has(&seen.client, "back/sub19/file999");
}

#[test]
fn rclone_works_the_same_direct_and_proxied() {
    if !installed("rclone") {
        return;
    }
    let prepare = |client: &Path, upstream: &Path| {
        thousand_files(&client.join("tree"));
        small_file(&upstream.join("there"), 200_000, 2);
    };
    let world = World::start();
    let seen = same(&world, prepare, |target| target.rclone(&["copy", "-q", "tree", "@:tree"]));
    assert_has(&seen.upstream, "tree/sub19/file999");
    same(&world, prepare, |target| target.rclone(&["copyto", "-q", "@:there", "got"]));
    let seen = same(&world, prepare, |target| target.rclone(&["lsf", "@:"]));
    assert_eq!(seen.output, ["there"]);
    same(&world, prepare, |target| target.rclone(&["check", "-q", "--download", "@:", "@:"]));
    same(&world, prepare, |target| target.rclone(&["moveto", "-q", "@:there", "@:sub/elsewhere"]));
}

#[test]
fn psftp_works_the_same_direct_and_proxied() {
    if !installed("psftp") || !installed("puttygen") {
        return;
    }
    let prepare = |client: &Path, upstream: &Path| {
        small_file(&client.join("one"), 300_000, 1);
        small_file(&upstream.join("there"), 200_000, 2);
    };
    let seen = same(&World::start(), prepare, |target| {
        target
            .psftp("pwd\nput one\nget there got\nmkdir sub\nmv one sub/moved\nchmod 600 sub/moved\nls sub\nrm there\nls\nquit\n")
    });
    assert_has(&seen.upstream, "sub/moved 100600 300000 bytes");
    assert_has(&seen.client, "got 100644 200000 bytes");
}

#[test]
fn a_file_of_one_gibibyte_arrives_whole_in_both_directions() {
    let world = World::start();
    there_and_back(&world, &world.proxied(USER), 1 << 30);
}

#[test]
fn rekeying_at_every_mebibyte_on_both_legs_loses_nothing_of_512_mebibytes_each_way() {
    let world = World::with(Setup { sshd: &["RekeyLimit 1M"], ..Setup::default() });
    there_and_back(&world, &world.proxied(USER).with_option("RekeyLimit=1M"), 512 << 20);
}

/// Puts a file of this size, gets it back under another name and compares all three.
#[track_caller]
fn there_and_back(world: &World, target: &Target, size: u64) {
    let [sent, got] = ["sent", "got"].map(|name| world.client().join(name));
    big_file(&sent, size);
    target.sftp_within(LONG, "put sent there\nget there got\n").success();
    let there = world.sshd.files.join("there");
    assert_eq!(there.metadata().unwrap().len(), size);
    let expected = hash(&sent);
    assert_eq!((hash(&there), hash(&got)), (expected.clone(), expected));
}

#[test]
fn the_client_alone_may_rekey() {
    let world = World::start();
    there_and_back(&world, &world.proxied(USER).with_option("RekeyLimit=1M"), 32 << 20);
}

#[test]
fn the_upstream_alone_may_rekey() {
    let world = World::with(Setup { sshd: &["RekeyLimit 1M"], ..Setup::default() });
    there_and_back(&world, &world.proxied(USER), 32 << 20);
}

#[test]
fn a_time_of_day_and_what_ls_says_in_its_place_look_the_same() {
    let world = World::start();
    let line = |time: &str| masked(&format!("drwxr-xr-x    2 root     root         4096 Nov 27 {time} ."), &world.direct());
    assert_eq!(line("13:15"), line(" 2026"));
    assert_ne!(line("13:15"), line(" 4096"));
}
