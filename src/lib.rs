//! sftpproxy: an SFTP router. It proves a client's public key, finds the user's route and relays SFTP to that user's own sshd.
//!
//! The modules stand in reading order: each uses only what stands above it. See ARCHITECTURE.md for the picture.

// Pure: no I/O, no clock, no log.
pub mod wire;

pub mod path;
pub mod sftp;

pub mod answerer;
pub mod rate;

pub mod error;
pub mod identity;

pub mod event;
pub mod hash;
pub mod known_hosts;
pub mod network;
pub mod proxy;

pub mod pin;
pub mod policy;
pub mod sealed;

pub mod route;

pub mod ledger;
pub mod stream;

// The world, one thing a file.
pub mod secret;

pub mod config;

pub mod order;

pub mod admission;
pub mod metrics;
pub mod store;

pub mod audit;

pub mod ffi;
pub mod host_keys;
pub mod listeners;

pub mod leg;
pub mod limits;
pub mod pace;
pub mod rekey;
pub mod relay;

pub mod origin;

pub mod explain;
pub mod live;
pub mod watch;

pub mod pipe;

pub mod downstream;
pub mod upstream;

pub mod survive;

pub mod login;
pub mod session;

pub mod bans;

pub mod registry;

pub mod control;
pub mod nodes;

pub mod follow;

pub mod monitor;
pub mod server;
pub mod signals;

pub mod sandbox;

pub mod account;
pub mod admin;
pub mod capacity;
pub mod cli;
pub mod logfile;
pub mod successor;
