//! The tests of the whole: one binary, one file a feature. `world` has the parts (real sshd, real redis-server, our program).

#[allow(dead_code, reason = "the world offers what the next test wants, not only what today's want")]
mod world;

#[allow(dead_code, reason = "the hostile client can do what the next attack wants")]
mod raw;

mod acknowledged;
mod admin;
mod admission;
mod attacks;
mod audit;
mod bench;
mod chaos;
mod contract;
mod control;
mod cve;
mod differential;
mod dist;
mod docker_case;
mod doctor;
mod documents;
mod explain;
mod faults;
mod first_ten_minutes;
mod follow;
mod ha;
mod haproxy_case;
mod home;
mod install;
mod integrity;
mod limits;
mod login;
mod monitor;
mod nth;
mod policy;
mod proxied;
mod random;
mod rekey;
mod report;
mod reuse;
mod sandbox;
mod secrets;
mod settings;
mod signals;
mod stands;
mod stores;
mod survive;
mod tidy;
mod told;
mod top;
mod transfer;
mod trust;
mod upgrade;
mod upstream_key;
mod watched;
