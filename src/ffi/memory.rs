//! Memory that a thread which has come to rest does not need: pages of its stack that only the login went down to, and pages that
//! malloc(3) holds free. Also how malloc(3) is told at the start to hold little: with a thousand sessions that wait, both together halve
//! what a session needs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Bytes below the current frame that stay: what this function and the calls it makes may stand on.
const MARGIN: usize = 4 * 1024;

/// Seconds between two calls of malloc_trim(3), which walks the whole heap.
const BETWEEN_TRIMS: u64 = 5;

unsafe extern "C" {
    /// OpenSSL's own (OPENSSL_init_crypto(3)): frees what it holds for this thread, above all two random generators of 8 KiB, and makes them
    /// anew when they are next needed. Both libraries link libcrypto.
    fn OPENSSL_thread_stop();
}

/// Gives back what this thread will not need until it has something to do.
pub fn give_back() {
    // SAFETY: may be called by any thread that is not within a call of OpenSSL.
    unsafe { OPENSSL_thread_stop() };
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
