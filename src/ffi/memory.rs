//! Memory that a thread which has come to rest does not need: pages of its stack that only the login went down to, and pages that
//! malloc(3) holds free. Also how malloc(3) is told at the start to hold little: with a thousand sessions that wait, both together halve
//! what a session needs. And what becomes of an allocation that fails: it is tried again for a second, before Rust ends the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc;

/// What glibc's malloc(3) can be told by this variable only, and only when a program starts: no free chunks kept by each thread (40 KiB a
/// session, left over from its login), and two heaps instead of eight times the processors.
const TUNABLES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=2");

/// Starts this program again, in the same process, with [`TUNABLES`]; comes back when they are set, by us or by the operator, or when it
/// cannot be done, which costs nothing but memory. To be called before anything else is done.
#[cfg(target_env = "gnu")]
pub fn with_small_heaps() {
    use std::os::unix::process::CommandExt;

    let (name, value) = TUNABLES;
    if std::env::var_os(name).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let mut again = std::process::Command::new("/proc/self/exe");
    if let Some(first) = arguments.next() {
        again.arg0(first);
    }
    let _ = again.args(arguments).env(name, value).exec();
}

/// Nothing to do for another libc.
#[cfg(not(target_env = "gnu"))]
pub fn with_small_heaps() {}

/// The system's allocator, for this program's own allocations (not for those of the libraries in C, which get an error). Rust ends the whole process when one
/// fails, and a want of memory may pass: pages are given back, sessions end. So it is tried again, and only after a second that is so.
pub struct Patient;

/// Milliseconds to wait before each further try.
const AGAIN: [u64; 6] = [0, 10, 40, 100, 350, 500];

/// Tries again until there is memory; NULL when there is none after all.
#[cold]
fn again(mut attempt: impl FnMut() -> *mut u8) -> *mut u8 {
    for wait in AGAIN {
        #[cfg(target_env = "gnu")]
        // SAFETY: may be called at any time by any thread.
        unsafe {
            libc::malloc_trim(0)
        };
        thread::sleep(Duration::from_millis(wait));
        let got = attempt();
        if !got.is_null() {
            return got;
        }
    }
    std::ptr::null_mut()
}

// SAFETY: every call goes to the system's allocator as it came, once or several times until it succeeds; a failed one has changed nothing.
unsafe impl GlobalAlloc for Patient {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is what the system's allocator wants; likewise below.
        let attempt = || unsafe { System.alloc(layout) };
        let got = attempt();
        if got.is_null() { again(attempt) } else { got }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let attempt = || unsafe { System.alloc_zeroed(layout) };
        let got = attempt();
        if got.is_null() { again(attempt) } else { got }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; what is at `at` stays as it is when it fails.
        let attempt = || unsafe { System.realloc(at, layout, size) };
        let got = attempt();
        if got.is_null() { again(attempt) } else { got }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bytes below the current frame that stay: what this function and the calls it makes may stand on.
const MARGIN: usize = 4 * 1024;

/// Seconds between two calls of malloc_trim(3), which walks the whole heap.
const BETWEEN_TRIMS: u64 = 5;

unsafe extern "C" {
    /// OpenSSL's own (OPENSSL_init_crypto(3)): frees what it holds for this thread, above all two random generators of 8 KiB, and makes them
    /// anew when they are next needed. Both libraries link libcrypto.
    fn OPENSSL_thread_stop();
}

/// Frees what libcrypto holds for this thread. By itself it does so behind the thread's last line, which may be after it was ended for all of the
/// process.
pub fn end_thread() {
    // SAFETY: may be called by any thread that is not within a call of OpenSSL.
    unsafe { OPENSSL_thread_stop() };
}

/// Gives back what this thread will not need until it has something to do.
pub fn give_back() {
    end_thread();
    give_back_stack();
    give_back_heap();
}

/// Tells the kernel that nothing below the current frame is needed: the pages are zero when they are used again.
fn give_back_stack() {
    let probe = 0u8;
    let here = (&raw const probe) as usize;
    let (mut low, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are made by the first call, read by the second and destroyed by the third; a failure ends it.
    let known = unsafe {
        let mut attributes = std::mem::zeroed::<libc::pthread_attr_t>();
        libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) == 0 && {
            let got = libc::pthread_attr_getstack(&raw const attributes, &raw mut low, &raw mut size);
            libc::pthread_attr_destroy(&raw mut attributes);
            got == 0
        }
    };
    // SAFETY: takes a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    let high = here.saturating_sub(MARGIN) & !(page - 1);
    let bottom = low as usize;
    if known && bottom < high && high < bottom + size {
        // SAFETY: the range is of this thread's own stack, which grows downwards, and ends well below every frame in use.
        unsafe { libc::madvise(low, high - bottom, libc::MADV_DONTNEED) };
    }
}

/// Lets malloc(3) give free pages back, for whichever thread they were; now and then only.
#[cfg(target_env = "gnu")]
fn give_back_heap() {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let last = LAST.load(Ordering::Relaxed);
    if now >= last + BETWEEN_TRIMS && LAST.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        // SAFETY: may be called at any time by any thread.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_back_heap() {}
