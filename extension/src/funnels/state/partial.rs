//! Partial states of `window_funnel` and `funnel`: combined, sent between workers and read again.

use super::*;

impl Config {
    /// Reads the configuration at the front of a sent state and moves `r` behind it.
    fn decode(bytes: &[u8], kind: Kind, alloc: ContextAlloc) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes, STATE_VERSION)?;
        let read_kind = match r.u8()? {
            0 => Kind::Level,
            1 => Kind::Chain,
            _ => return Err(DecodeError::Malformed("unknown kind of funnel")),
        };
        if kind != read_kind {
            return Err(DecodeError::Malformed("state of another aggregate"));
        }
        let conditions = usize::from(r.u8()?);
        if !(1..=MAX_CONDITIONS).contains(&conditions) {
            return Err(DecodeError::Malformed("number of steps is out of range"));
        }
        let window = r.i64()?;
        if window < 0 {
            return Err(DecodeError::Malformed("window is out of range"));
        }
        let mode = r.bytes()?;
        r.bytes()?;
        let question = std::str::from_utf8(mode)
            .ok()
            .and_then(|mode| Question::new(kind, mode, conditions, window).ok())
            .ok_or(DecodeError::Malformed("mode is not known"))?;
        Ok(Self {
            needs_unmatched_rows: question.needs_unmatched_rows(),
            sent: copy(bytes.get(..bytes.len() - r.remaining()).unwrap_or_default(), alloc),
            question,
            source: Source::Nowhere,
            window_written: pg_sys::Interval { time: 0, day: 0, month: 0 },
            mode_written: AVec::new_in(alloc),
            shared: false,
            constant: false,
            has_rivals: false,
        })
    }
}

/// Shared body of the combine functions: (internal, internal) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of a combine function.
pub unsafe fn combine(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see above.
    unsafe {
        let context = context(fcinfo);
        match (state::<State>(fcinfo, 0), state::<State>(fcinfo, 1)) {
            (None, None) => give_none(fcinfo),
            (Some(into), None) => give(into),
            (into, Some(from)) => {
                let into = match into {
                    Some(into) => into,
                    None => {
                        let config = if from.config().shared {
                            from.config
                        } else {
                            let mine = context.place(copy_config(from.config(), context));
                            NonNull::new_unchecked(mine)
                        };
                        &mut *context.place(State::new(config, context))
                    }
                };
                if into.config != from.config && into.config().sent != from.config().sent {
                    raise(INVALID, "win, mode and steps must be the same for all rows of a group");
                }
                into.log.append(&from.log);
                give(into)
            }
        }
    }
}

/// A copy for a combined state, to which no row is added.
fn copy_config(config: &Config, alloc: ContextAlloc) -> Config {
    Config {
        sent: copy(&config.sent, alloc),
        question: config.question.clone(),
        needs_unmatched_rows: config.needs_unmatched_rows,
        source: Source::Nowhere,
        window_written: config.window_written,
        mode_written: AVec::new_in(alloc),
        shared: false,
        constant: false,
        has_rivals: false,
    }
}

/// Shared body of the serialize functions: (internal) -> bytea.
///
/// # Safety
/// `fcinfo` must be the frame of a serialize function.
pub unsafe fn serialize(fcinfo: FunctionCallInfo) -> Datum {
    // SAFETY: see above.
    unsafe {
        context(fcinfo);
        let Some(state) = state::<State>(fcinfo, 0) else { return args::return_null(fcinfo) };
        let mut log = AVec::new_in(ContextAlloc::current());
        let mut w = Writer::new(&mut log, STATE_VERSION);
        state.log.encode(&mut w);
        let mut bytes =
            AVec::with_capacity_in(state.config().sent.len() + log.len(), ContextAlloc::current());
        bytes.extend_from_slice(&state.config().sent);
        bytes.extend_from_slice(&log);
        args::make_varlena(&bytes)
    }
}

/// Shared body of the deserialize functions: (bytea, internal) -> internal.
///
/// # Safety
/// `fcinfo` must be the frame of a deserialize function.
pub unsafe fn deserialize(fcinfo: FunctionCallInfo, kind: Kind) -> Datum {
    // SAFETY: see above.
    unsafe {
        context(fcinfo);
        // Combined right away and then dropped with the current context; combine copies what it keeps.
        let context = ContextAlloc::current();
        let Some(bytes) = args::bytes(fcinfo, 0) else { return args::return_null(fcinfo) };
        let refuse = |error: DecodeError| -> ! {
            raise(
                PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
                format!("read a partial state of a funnel: {error}"),
            )
        };
        let config = match kept(fcinfo) {
            Some(kept) if bytes.starts_with(&kept.as_ref().sent) => kept,
            _ => keep(fcinfo, context, |alloc| match Config::decode(bytes, kind, alloc) {
                Ok(config) => config,
                Err(error) => refuse(error),
            }),
        };
        let events = bytes.get(config.as_ref().sent.len()..).unwrap_or_default();
        match decode_log(events, context) {
            Ok(log) => give(context.place(State { config, log })),
            Err(error) => refuse(error),
        }
    }
}

fn decode_log(bytes: &[u8], alloc: ContextAlloc) -> Result<EventLog<ContextAlloc>, DecodeError> {
    let mut r = Reader::new(bytes, STATE_VERSION)?;
    let log = EventLog::decode_in(&mut r, alloc)?;
    r.finish()?;
    Ok(log)
}
