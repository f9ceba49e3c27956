//! Routes in Redis.
