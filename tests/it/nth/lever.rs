//! The file that `tests/nth/fail.c` and we share: which call is to fail, how many there were, and who made the one that failed.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use crate::world::process::run;

/// What is counted, with its number in `fail.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Malloc = 1,
    Read,
    Write,
    Connect,
    Poll,
    OpenAt,
    Socket,
    Option,
    Thread,
    Log,
}

/// Whose calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    All = 0,
    /// The libraries in C: libssh, libssh2, OpenSSL, zlib, the C library itself.
    C,
    Rust,
}

/// Which call fails, and how.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    pub class: Class,
    /// The error; 0 = it succeeds and moves one byte only.
    pub error: i32,
    /// From 1 on; 0 = none, they are only counted.
    pub nth: u64,
    /// All that follow fail too.
    pub on: bool,
    /// Calls of all threads count, not only those that serve a session.
    pub all_threads: bool,
    pub callers: Callers,
}

/// Frames of a trace, and how many bytes one has: module, symbol, offset.
const FRAMES: usize = 48;
const FRAME: usize = 48 + 64 + 8;
const TRACE: usize = 8 + FRAMES * FRAME;

/// Where things are in the file, and parts of the program at most.
const COUNT: u64 = 32;
const FAILED: u64 = 40;
const AT: u64 = 48;
const END: u64 = AT + TRACE as u64;
const RANGES: u64 = END + TRACE as u64;
const MOST: usize = 4096;

/// The shared file of one router.
pub struct Lever {
    file: File,
    path: PathBuf,
}

impl Lever {
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("lever");
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).expect("a file to share");
        let ranges = &PROGRAM.ranges;
        let bytes: Vec<u8> = ranges.iter().flat_map(|(from, to)| [from.to_ne_bytes(), to.to_ne_bytes()].concat()).collect();
        file.set_len(RANGES + 16 * MOST as u64).expect("its size");
        file.write_all_at(&bytes, RANGES).expect("the parts of the program");
        file.write_all_at(&(ranges.len() as u32).to_ne_bytes(), 28).expect("their number");
        Self { file, path }
    }

    /// The variables of a process that obeys.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", LIBRARY.display().to_string()), ("NTH_FILE", self.path.display().to_string())]
    }

    /// From now on calls are counted.
    pub fn arm(&self, order: Order) {
        self.disarm();
        self.put(4, &order.error.to_ne_bytes());
        self.put(8, &order.nth.to_ne_bytes());
        self.put(16, &u32::from(order.on).to_ne_bytes());
        self.put(20, &u32::from(!order.all_threads).to_ne_bytes());
        self.put(24, &(order.callers as u32).to_ne_bytes());
        self.put(COUNT, &[0; 16]);
        self.put(AT, &[0; 2 * TRACE]);
        self.put(0, &(order.class as u32).to_ne_bytes());
    }

    /// From now on none is.
    pub fn disarm(&self) {
        self.put(0, &[0; 4]);
    }

    /// How many calls there were since it was armed, and how many of them were made to fail.
    pub fn counted(&self) -> (u64, u64) {
        (self.number(COUNT), self.number(FAILED))
    }

    /// Who made the first call that failed.
    pub fn caller(&self) -> Vec<String> {
        self.trace(AT)
    }

    /// Where the process was when a signal ended it; empty when none has.
    pub fn end(&self) -> Vec<String> {
        self.trace(END)
    }

    fn trace(&self, at: u64) -> Vec<String> {
        let mut bytes = vec![0; TRACE];
        self.file.read_exact_at(&mut bytes, at).expect("a trace");
        let count = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        let frames = bytes[8..].chunks(FRAME).take(count).map(frame);
        // What the library has done itself tells nothing.
        frames.filter(|frame| !frame.starts_with("nth-fail.so")).collect()
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).expect("the shared file");
    }

    fn number(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).expect("the shared file");
        u64::from_ne_bytes(bytes)
    }
}

/// A frame as it is shown: of our program by the name of the function, else by the place in the library and an exported name before it.
fn frame(bytes: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let (module, symbol) = (text(&bytes[..48]), text(&bytes[48..112]));
    let offset = u64::from_ne_bytes(bytes[112..].try_into().expect("eight bytes"));
    match module.as_str() {
        "sftpproxy" => PROGRAM.name(offset).to_owned(),
        _ if symbol.is_empty() => format!("{module}+{offset:#x}"),
        _ => format!("{module}+{offset:#x}({symbol})"),
    }
}

/// The functions of our program.
struct Program {
    /// Address and name, in order.
    functions: Vec<(u64, String)>,
    /// From where to where it is C.
    ranges: Vec<(u64, u64)>,
}

static PROGRAM: LazyLock<Program> = LazyLock::new(|| {
    let listed = run(Command::new("nm").args(["-nC", "--defined-only", env!("CARGO_BIN_EXE_sftpproxy")])).success();
    let function = |line: &str| {
        let mut fields = line.splitn(3, ' ');
        let address = u64::from_str_radix(fields.next()?, 16).ok()?;
        let is_text = fields.next().is_some_and(|kind| "tTwW".contains(kind));
        is_text.then(|| (address, fields.next().unwrap_or_default().to_owned()))
    };
    let functions: Vec<_> = listed.lines().filter_map(function).collect();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for pair in functions.windows(2) {
        let ((from, name), (to, _)) = (&pair[0], &pair[1]);
        let is_c = !name.contains("::") && !name.starts_with('<') && !name.starts_with("rust_") && !name.starts_with("__rust");
        match ranges.last_mut() {
            Some(last) if is_c && last.1 == *from => last.1 = *to,
            _ if is_c && from < to => ranges.push((*from, *to)),
            _ => {}
        }
    }
    assert!(!ranges.is_empty() && ranges.len() <= MOST, "{} parts of the program are C", ranges.len());
    Program { functions, ranges }
});

impl Program {
    fn name(&self, address: u64) -> &str {
        let after = self.functions.partition_point(|(from, _)| *from <= address);
        after.checked_sub(1).map_or("?", |at| &self.functions[at].1)
    }
}

/// The library, made anew in each run of the tests.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (path, new) = (folder.join("nth-fail.so"), folder.join(format!("nth-fail.so.{}", std::process::id())));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nth/fail.c");
    let options = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-U_FORTIFY_SOURCE", "-fPIC", "-shared"];
    run(Command::new("cc").args(options).arg("-o").arg(&new).arg(source)).success();
    std::fs::rename(&new, &path).expect("the library in its place");
    path
});
