//! The program: arguments, log, privileges, run, exit code. In this order, because each step needs what the one before has set up
//! and must not have what the one after gives up.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sd_notify::NotifyState;
use sftpproxy::account::Account;
use sftpproxy::admission::Admission;
use sftpproxy::audit;
use sftpproxy::capacity::{self, Machine};
use sftpproxy::config::{self, Config, SETTINGS, Store, unknown_variables};
use sftpproxy::control::Desk;
use sftpproxy::control::hand_over::{Estate, Heir, Leave};
use sftpproxy::control::older::Older;
use sftpproxy::control::socket::{self, Socket};
use sftpproxy::ffi::{self, Bind, BindOptions};
use sftpproxy::host_keys::{self, HostKey};
use sftpproxy::listeners::{Listener, Supply};
use sftpproxy::metrics::Metrics;
use sftpproxy::monitor::Monitor;
use sftpproxy::server::{self, Ended, Shutdown};
use sftpproxy::session::World;
use sftpproxy::store::RouteStore;
use sftpproxy::store::grace::Grace;
use sftpproxy::store::measured::Measured;
use sftpproxy::upstream::{self, Kept, Quarantine};
use sftpproxy::{admin, cli, logfile, sandbox, signals, successor};
use signal_hook::consts::{SIGHUP, SIGUSR1};

/// A want of memory that passes ends no session.
#[global_allocator]
static ALLOCATOR: ffi::Patient = ffi::Patient;

/// Exit codes, as `--help` and the manual say.
const FAILED: u8 = 1;
const BAD_SETTINGS: u8 = 2;
const SESSIONS_CUT: u8 = 3;

/// How long the audit may take to write what is left, once all sessions have ended: short enough for who waits for the stop.
const FLUSH: Duration = Duration::from_secs(5);

/// How much longer than its limit a router that has handed over may take to end: its threads, and what is left of its audit.
const LATE: Duration = Duration::from_secs(11);

/// What SIGHUP does, and what does the rest.
const RELOADED: &str = "reload: banner, log file and audit file are read or opened anew; routes, known_hosts and keys for upstreams always \
    are. Every other setting, the host keys and the program itself change when another router takes over: sftpproxy reload, or systemctl reload";

/// Longest banner in bytes: it is sent to everybody who connects.
const MAX_BANNER: u64 = 16 * 1024;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let serves = matches!(matches.subcommand(), None | Some(("serve", _)));
    let mut supply = Supply::default();
    if serves {
        ffi::with_small_heaps();
        // Before anything else opens a descriptor.
        supply = match Supply::of_manager() {
            Ok(supply) => supply,
            Err(reason) => return failed(&reason),
        };
    }
    let names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    for name in unknown_variables(names.iter().map(String::as_str)) {
        eprintln!("sftpproxy: warning: {name} is no setting; is it misspelt?");
    }
    let config = match cli::config(&matches) {
        Ok(config) => config,
        Err(faults) => return bad_settings(&faults),
    };
    if let Some(("reload", _)) = matches.subcommand() {
        return match successor::start(&config.control) {
            Ok(pid) => {
                println!("process {pid} has taken over");
                ExitCode::SUCCESS
            }
            Err(reason) => failed(&reason),
        };
    }
    cli::forget_secrets();
    if config.sandbox
        && let Err(reason) = sandbox::close()
    {
        return failed(&reason);
    }
    if let Err(reason) = ffi::init() {
        return failed(&reason);
    }
    match matches.subcommand() {
        None | Some(("serve", _)) => match serve(config, supply) {
            Ok(Ended::Clean) => ExitCode::SUCCESS,
            Ok(Ended::Cut) => ExitCode::from(SESSIONS_CUT),
            Err(reason) => failed(&reason),
        },
        Some(("check-config", _)) => match check(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(faults) => bad_settings(&faults),
        },
        // What is looked at to be changed is looked at where it is changed.
        Some((name, matches)) => match open_store(&config, false) {
            Ok(store) => {
                let context = admin::Context {
                    store: store.as_ref(),
                    defaults: &config.defaults,
                    upstream: &config.upstream,
                    control: &config.control,
                    port: config.port,
                    config: &config,
                };
                let (mut out, mut err, mut input) = (io::stdout().lock(), io::stderr().lock(), io::stdin().lock());
                // Who is asked must also be able to see the question.
                let interactive = io::stdin().is_terminal() && io::stderr().is_terminal();
                let colour = anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never;
                let mut console = admin::Console { out: &mut out, err: &mut err, input: &mut input, interactive, colour };
                admin::run(name, matches, &context, &mut console).into()
            }
            Err(reason) => failed(&reason),
        },
    }
}

fn bad_settings(faults: &[String]) -> ExitCode {
    for fault in faults {
        eprintln!("sftpproxy: {fault}");
    }
    ExitCode::from(BAD_SETTINGS)
}

fn failed(reason: &str) -> ExitCode {
    eprintln!("sftpproxy: {reason}");
    ExitCode::from(FAILED)
}

/// Checks what can be checked without serving: files, keys, algorithms.
fn check(config: &Config) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    let keys = host_keys::load(config, false).unwrap_or_else(|reason| {
        faults.push(reason);
        Vec::new()
    });
    let warning = host_keys::compare(config, &keys);
    faults.extend(make_bind(config, keys).err());
    capacity::raise_files(config.admission.sessions);
    faults.extend(Machine::read().objects(config.admission.sessions).map(|(_, said)| said));
    faults.extend(banner(config).err());
    if upstream::has_master(&config.upstream) {
        faults.extend(upstream::master(&config.upstream).err());
    }
    if let Some((user, group)) = &config.account {
        faults.extend(Account::find(user, group.as_deref()).err());
    }
    if let Store::File(path) = &config.store {
        faults.extend(sftpproxy::store::file::FileStore::new(path).err().map(|error| error.what));
    }
    if let Store::Redis(redis) = &config.store {
        faults.extend(sftpproxy::store::redis::RedisStore::new(redis).err().map(|error| error.what));
    }
    faults.extend(audit::check(&config.audit));
    if let Some(warning) = warning {
        eprintln!("sftpproxy: warning: {warning}");
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    println!("settings are good (port {}, libssh {})", config.port, ffi::version());
    Ok(())
}

/// Where connections come in, and from whom that was taken.
struct Door {
    sftp: Vec<Arc<Listener>>,
    metrics: Option<Arc<Listener>>,
    heir: Option<Heir>,
}

/// Has every socket open. What is not wanted of those that were given is closed.
fn open_door(config: &Config, mut supply: Supply) -> Result<Door, String> {
    let mut heir = None;
    if let Some(path) = config.control.socket.as_ref().filter(|_| config.control.take_over)
        && let Some((claimed, taken)) = Heir::claim(path, &config.control.node)?
    {
        supply.add(taken);
        heir = Some(claimed);
    }
    let sftp = supply.sftp(config)?.into_iter().map(Arc::new).collect();
    Ok(Door { sftp, metrics: supply.metrics(config)?.map(Arc::new), heir })
}

/// What is asked for by signals that end nothing.
#[derive(Default)]
struct Again {
    /// To open the audit file.
    audit: Arc<AtomicBool>,
    /// To open the log file.
    log: Arc<AtomicBool>,
}

impl Again {
    /// Before anybody can send the signals: unhandled they would end the program.
    fn register() -> Result<Self, String> {
        let again = Self::default();
        for (signal, flag) in [(SIGUSR1, &again.audit), (SIGHUP, &again.audit), (SIGHUP, &again.log)] {
            let taken = signal_hook::flag::register(signal, Arc::clone(flag));
            taken.map_err(|error| format!("signals: {error}"))?;
        }
        Ok(again)
    }
}

fn serve(mut config: Config, supply: Supply) -> Result<Ended, String> {
    let account = account(&config)?;
    let keys = host_keys::load(&config, true)?;
    let warning = host_keys::compare(&config, &keys);
    let shown: Vec<String> = keys.iter().map(|key| format!("{:?}", key.public)).collect();
    let bind = make_bind(&config, keys)?;
    let banner = Mutex::new(banner(&config)?);
    let Door { sftp, metrics: metrics_at, heir } = open_door(&config, supply)?;
    let again = Again::register()?;
    capacity::raise_files(config.admission.sessions);
    let left = drop_privileges(&mut config, account)?;
    heir.as_ref().map_or(Ok(()), Heir::may_follow)?;
    let too_many = Machine::read().objects(config.admission.sessions);
    let shut_in = config.sandbox.then(|| sandbox::shut_in(&config)).transpose()?;
    // Threads exist from here on.
    logfile::start(&config.log, &again.log)?;
    warning.into_iter().chain(left).for_each(|line| log::warn!("{line}"));
    shut_in.into_iter().for_each(|line| log::info!("{line}"));
    if let Some((fit, said)) = too_many {
        config.admission.sessions = fit.max(1);
        log::warn!("{said}; until then it is {}", config.admission.sessions);
    }
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let metrics = Metrics::new(started, metrics_at.is_some(), config.monitor.users);
    let store: Box<dyn RouteStore> = Box::new(Measured::new(open_store(&config, true)?, &metrics));
    let store: Box<dyn RouteStore> = match &config.store {
        Store::Redis(redis) if !redis.grace.is_zero() => Box::new(Grace::start(store, redis.grace)?),
        _ => store,
    };
    if let Err(error) = store.check() {
        log::error!("{error}; logins are refused until it answers");
    }
    let audit = audit::start(&config.audit, &again.audit, &metrics)?;
    let kept = Kept::new(config.upstream.reuse)?;
    let (admission, audit_of) = (Admission::new(config.admission.clone()), audit.audit());
    let (limits, quarantine) = (Arc::default(), Quarantine::default());
    let world = Arc::new(World { config, store, bind, banner, kept, audit: audit_of, limits, admission, quarantine, metrics });
    let shutdown = Shutdown::new()?;
    let older = watch_signals(&world, &shutdown)?;
    let desk = Desk::new(Arc::clone(shutdown.registry()), &world.config.control.node);
    sftpproxy::follow::watch(&world, &desk, heir.is_some())?;
    sftpproxy::bans::watch(&world)?;
    let taken = heir.is_some();
    let socket = take_over(&world.config, heir, &desk)?.map(Arc::new);
    let monitor = metrics_at.as_ref().map(|listener| Monitor::start(listener, &world, shutdown.registry())).transpose();
    let monitor = match monitor {
        // Nobody is left who could go on instead.
        Err(reason) if taken => {
            log::error!("no metrics: {reason}");
            None
        }
        other => other?,
    };
    let sockets: Vec<_> = sftp.iter().chain(&metrics_at).cloned().collect();
    // Weak: dropped here at the end, it removes its name.
    let leave = leave(Arc::clone(&shutdown), monitor, socket.as_ref().map(Arc::downgrade));
    desk.bequeath(Estate::new(&sockets, world.config.plain.clone(), leave));
    drop((sockets, metrics_at));
    tell_listening(&world, &sftp, &shown);
    let _ = sd_notify::notify(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready]);
    let ended = server::serve(&world, sftp, &shutdown);
    audit.close(FLUSH);
    let ended = ended?;
    // Who ends first would take the others along: systemd kills what is left of a service whose main process has ended.
    older.wait(world.config.limits.drain_timeout + LATE);
    log::info!("stopped");
    Ok(ended)
}

fn tell_listening(world: &World, listeners: &[Arc<Listener>], host_keys: &[String]) {
    for listener in listeners {
        log::info!(
            "listening on {} store=\"{}\" host-keys=\"{}\" libssh={} socket={}",
            listener.address,
            world.store.describe(),
            host_keys.join(", "),
            ffi::version(),
            listener.origin.name()
        );
    }
}

/// Ends at a signal, and with it the routers that have handed over to this one; reads again what can be at another.
fn watch_signals(world: &Arc<World>, shutdown: &Arc<Shutdown>) -> Result<Arc<Older>, String> {
    let (older, socket) = (Arc::new(Older::default()), world.config.control.socket.clone());
    let (signalled, stopping, reloading) = (Arc::clone(shutdown), Arc::clone(&older), Arc::downgrade(world));
    let end = move || {
        // Who has handed over is no longer the service.
        if signalled.heir().is_none() {
            let _ = sd_notify::notify(&[NotifyState::Stopping]);
            socket.iter().for_each(|socket| stopping.stop(socket));
        }
        signalled.signal();
    };
    let reload = move || {
        let Some(world) = reloading.upgrade() else { return };
        match banner(&world.config) {
            Ok(text) => *world.banner.lock().unwrap_or_else(PoisonError::into_inner) = text,
            Err(reason) => log::warn!("the banner stays as it was: {reason}"),
        }
        log::info!("{RELOADED}");
    };
    signals::watch(end, reload)?;
    Ok(older)
}

/// What a router does for the one that has taken over from it.
fn leave(shutdown: Arc<Shutdown>, monitor: Option<Monitor>, socket: Option<Weak<Socket>>) -> Leave {
    Box::new(move |heir| {
        if let Some(Err(error)) = socket.as_ref().and_then(Weak::upgrade).map(|socket| socket.step_aside()) {
            log::warn!("control socket: {error}; the commands sessions and top do not see what is left here");
        }
        // From its next line on the other one is the service; systemd hears it of this one only.
        let _ = sd_notify::notify(&[NotifyState::MainPid(heir)]);
        monitor.iter().for_each(Monitor::stop);
        shutdown.hand_over(heir);
    })
}

/// Tells the router before, if there is one, that nothing can fail any more, and answers the commands of this machine in its place.
fn take_over(config: &Config, heir: Option<Heir>, desk: &Arc<Desk>) -> Result<Option<Socket>, String> {
    let control = &config.control;
    let Some(heir) = heir else {
        if control.take_over {
            log::info!("take-over: no router answers at the control socket, there is nothing to take over");
        }
        return control_socket(control, desk);
    };
    let (from, changed) = (heir.pid(), heir.changed(&config.plain).join(" "));
    if let Some(warning) = heir.serves()? {
        log::warn!("take-over: {warning}");
    }
    log::info!(
        "taken over: from={from} changed=\"{changed}\"; sessions that run there keep the settings that it was started with"
    );
    let Some(path) = &control.socket else { return Ok(None) };
    let socket = socket::replace(path, control.mode).and_then(|socket| socket.serve(Arc::clone(desk)).map(|()| socket));
    // Nobody is left who could go on instead.
    socket.map(Some).or_else(|reason| Ok(without_socket(&reason)))
}

/// Answers the commands of this machine. A place that nobody has named may be in use or not writable: then there is no socket.
fn control_socket(config: &config::control::Control, desk: &Arc<Desk>) -> Result<Option<Socket>, String> {
    let Some(path) = &config.socket else { return Ok(None) };
    match socket::open(path, config.mode) {
        Ok(socket) => socket.serve(Arc::clone(desk)).map(|()| Some(socket)),
        Err(reason) if config.named => Err(reason),
        Err(reason) => Ok(without_socket(&reason)),
    }
}

fn without_socket(reason: &str) -> Option<Socket> {
    log::warn!("{reason}; the commands sessions and top do not see this router");
    None
}

fn make_bind(config: &Config, keys: Vec<HostKey>) -> Result<Bind, String> {
    let downstream = &config.downstream;
    let ciphers = safe_ciphers(&downstream.algorithms.ciphers);
    let options = BindOptions {
        ciphers: &ciphers,
        macs: &downstream.algorithms.macs,
        kex: &downstream.algorithms.kex,
        host_key_algorithms: &downstream.algorithms.host_keys,
        pubkey_algorithms: &downstream.pubkey_algorithms,
        rsa_min_bits: downstream.rsa_min_bits,
        software: "sftpproxy",
    };
    Bind::new(keys.into_iter().map(|key| key.private).collect(), &options)
}

/// The ciphers without AES-GCM where libssh does not check its tags, unless the operator has chosen them.
fn safe_ciphers(ciphers: &str) -> String {
    if !ciphers.contains("gcm") || ffi::checks_gcm_tags() {
        return ciphers.to_owned();
    }
    let chosen = SETTINGS.iter().all(|setting| setting.flag != "ciphers" || setting.default != ciphers);
    let says =
        "this libssh does not check the tags of AES-GCM (CVE-2026-59847): who is in between could alter what a client sends";
    if chosen {
        log::warn!("{says}; update libssh, or take AES-GCM out of SFTPPROXY_CIPHERS");
        return ciphers.to_owned();
    }
    log::info!("{says}; AES-GCM is not offered until libssh is updated");
    ciphers.split(',').filter(|cipher| !cipher.contains("gcm")).collect::<Vec<_>>().join(",")
}

/// `replicas`: whether they may answer, where there are any and the operator wants it.
fn open_store(config: &Config, replicas: bool) -> Result<Box<dyn RouteStore>, String> {
    Ok(match &config.store {
        Store::Redis(redis) => {
            let store = sftpproxy::store::redis::RedisStore::new(redis).map_err(|error| error.what)?;
            Box::new(if replicas { store } else { store.without_replicas() })
        }
        Store::File(path) => {
            let store = sftpproxy::store::file::FileStore::new(path).map_err(|error| error.what)?;
            Box::new(store.noting_in(&config.state_dir))
        }
    })
}

fn banner(config: &Config) -> Result<Option<String>, String> {
    let Some(path) = &config.downstream.banner else { return Ok(None) };
    let says = |reason: &dyn std::fmt::Display| format!("SFTPPROXY_BANNER = {}: {reason}", path.display());
    let size = std::fs::metadata(path).map_err(|error| says(&error))?.len();
    if size > MAX_BANNER {
        return Err(says(&format_args!("{size} bytes, at most {MAX_BANNER}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| says(&error))?;
    // RFC 4252 section 5.4: lines end with CR LF.
    Ok(Some(text.lines().map(|line| format!("{line}\r\n")).collect()).filter(|text: &String| !text.contains('\0')))
}

/// Whom to become, when started as root; the folders that it will write to are there then.
fn account(config: &Config) -> Result<Option<Account>, String> {
    let Some((user, group)) = config.account.as_ref().filter(|_| nix::unistd::geteuid().is_root()) else { return Ok(None) };
    let account = Account::find(user, group.as_deref())?;
    for folder in [Some(config.state_dir.as_path()), config.control.socket.as_deref().and_then(Path::parent)] {
        // Who needs one that cannot be made says so.
        let _ = folder.map(|folder| account.make_room(folder));
    }
    Ok(Some(account))
}

/// Becomes the account, if there is one to become; returns what the operator should be warned of.
fn drop_privileges(config: &mut Config, account: Option<Account>) -> Result<Option<String>, String> {
    if let Some(account) = account {
        account.become_it()?;
        if config.sandbox {
            sandbox::close()?;
        }
        config.upstream.account_home = account.home();
        return Ok(None);
    }
    // The predecessor's properties always name an account; started as somebody else it has no effect, as before.
    let says = "running as root; set SFTPPROXY_USERID and SFTPPROXY_GROUPID to an account of its own";
    Ok(nix::unistd::geteuid().is_root().then(|| says.into()))
}
