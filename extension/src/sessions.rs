//! Sessions: the aggregates `sessions` and `session_count`, the window functions `sessionize` and `session_number`,
//! and `session_id`.
//!
//! What a session is stands in `tidemark_core::session`; the SQL declarations in `sql/sessions.sql`.

use std::ffi::{c_int, c_void};

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum, FunctionCallInfo};
use sha1_smol::Sha1;
use tidemark_core::codec::{DecodeError, Reader, Writer};
use tidemark_core::session::{OutOfOrder, Sessionizer, Sessions};

use crate::support::aggregate::{Slot, State, aggregate};
use crate::support::alloc::ContextAlloc;
use crate::support::call_site::CallSite;
use crate::support::error::{INVALID, check_same, invalid_argument, not_null, raise, raise_hint};
use crate::support::interrupts::Interrupts;
use crate::support::interval::ConstantInterval;
use crate::support::{args, array, pg_function};

static DEFAULT_GAP: pg_sys::Interval = pg_sys::Interval { time: 30 * 60 * 1_000_000, day: 0, month: 0 };

/// Namespace of [`tidemark_session_id`]: the UUIDv5 of the name `tidemark:session` in the URL namespace.
const SESSION_NAMESPACE: &[u8] = b"tidemark:session";

/// 6ba7b811-9dad-11d1-80b4-00c04fd430c8, the namespace of URLs.
const NAMESPACE_URL: [u8; 16] = 0x6ba7b811_9dad_11d1_80b4_00c04fd430c8_u128.to_be_bytes();

/// The state of `sessions` and `session_count`.
struct Group {
    gap: ConstantInterval,
    sessions: Sessions<ContextAlloc>,
}

impl Group {
    fn new(gap: ConstantInterval, context: ContextAlloc) -> Self {
        Self { gap, sessions: Sessions::new_in(gap.length, context) }
    }
}

impl State for Group {
    fn like(&self, context: ContextAlloc) -> Self {
        Self::new(self.gap, context)
    }

    fn merge(&mut self, other: &Self, _: ContextAlloc) {
        check_same(self.sessions.merge(&other.sessions, Interrupts).is_ok(), "gap");
    }

    fn encode(&mut self, w: &mut Writer<'_, ContextAlloc>) {
        self.sessions.encode(w, Interrupts);
    }

    fn decode(r: &mut Reader<'_>, context: ContextAlloc, _: CallSite) -> Result<Self, DecodeError> {
        let sessions = Sessions::decode_in(r, context, Interrupts)?;
        Ok(Self { gap: ConstantInterval::of(sessions.gap()), sessions })
    }
}

aggregate! {
    sessions: Group {
        /// `sessions` and `session_count`: (internal, timestamptz [, interval]).
        transition tidemark_sessions_transition = add;
        /// `sessions`: tidemark.session[], empty without a row.
        final tidemark_sessions_final = sessions;
        /// `session_count`: bigint, 0 without a row.
        final tidemark_session_count_final = count;
    }
}

/// # Safety
/// `fcinfo` must be the frame of a call with these arguments.
unsafe fn add(slot: &mut Slot<Group>, fcinfo: FunctionCallInfo) {
    // SAFETY: see above.
    unsafe {
        let gap =
            if args::count(fcinfo) > 2 { not_null(args::interval(fcinfo, 2), "gap") } else { &DEFAULT_GAP };
        let Some(time) = args::event_time(fcinfo, 1) else { return };
        let group = slot.get_or_place(|context| Group::new(ConstantInterval::new(gap, "gap"), context));
        check_same(group.gap.is(gap, "gap"), "gap");
        group.sessions.push(time, Interrupts);
    }
}

unsafe fn count(group: Option<&mut Group>, _: FunctionCallInfo) -> Option<Datum> {
    Some(Datum::from(group.map_or(0, |group| group.sessions.count(Interrupts)) as i64))
}

/// # Safety
/// `fcinfo` must be the frame of a function that returns tidemark.session[].
unsafe fn sessions(mut group: Option<&mut Group>, fcinfo: FunctionCallInfo) -> Option<Datum> {
    let count = group.as_mut().map_or(0, |group| group.sessions.count(Interrupts));
    if count > 1_000_000 {
        // A composite takes about 60 bytes; far beyond this the array would pass Postgres' limit of 1 GB.
        raise_hint(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("{count} sessions in one group do not fit into an array"),
            "Group by person, or count them with session_count.",
        );
    }
    let rows = group
        .into_iter()
        .flat_map(|group| group.sessions.finish(Interrupts))
        .map(|s| [s.started_at, s.ended_at, s.events].map(|value| Some(Datum::from(value))));
    let types = [pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPTZOID, pg_sys::INT8OID];
    // SAFETY: see above.
    Some(unsafe { array::make_rows(CallSite::of(fcinfo), types, rows) })
}

// windowapi.h is not among pgrx's bindings; both functions have kept these signatures since PostgreSQL 8.4.
unsafe extern "C-unwind" {
    fn WinGetPartitionLocalMemory(window: *mut c_void, size: usize) -> *mut c_void;
    fn WinGetFuncArgCurrent(window: *mut c_void, index: c_int, is_null: *mut bool) -> Datum;
}

/// What `sessionize` and `session_number` remember of a window partition. All-zero bytes are the start.
#[repr(C)]
struct WindowState {
    begun: bool,
    gap: ConstantInterval,
    sessionizer: Sessionizer,
}

/// Advances the window by one row: start and number of its session, `None` for a row without event time.
///
/// # Safety
/// `fcinfo` must be the frame of a window function with the arguments (timestamptz, interval [, boolean]).
unsafe fn advance(fcinfo: FunctionCallInfo) -> Option<(i64, i64)> {
    // SAFETY: Postgres evaluates the arguments of the current row; an error in them must not jump over Rust frames,
    // hence the guard. The memory lives as long as the partition and starts zeroed.
    unsafe {
        let window = (*fcinfo).context.cast::<c_void>();
        let arguments = args::count(fcinfo);
        let (state, time, gap, cut) = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            let state = WinGetPartitionLocalMemory(window, size_of::<WindowState>()).cast::<WindowState>();
            let mut is_null = false;
            let time = WinGetFuncArgCurrent(window, 0, &mut is_null);
            let time = if is_null { None } else { Some(time.value() as i64) };
            let gap = if arguments > 1 {
                let gap = WinGetFuncArgCurrent(window, 1, &mut is_null);
                if is_null { std::ptr::null() } else { gap.cast_mut_ptr::<pg_sys::Interval>().cast_const() }
            } else {
                &raw const DEFAULT_GAP
            };
            let cut = arguments > 2 && {
                let cut = WinGetFuncArgCurrent(window, 2, &mut is_null);
                !is_null && cut.value() as u8 != 0
            };
            (state, time, gap, cut)
        });
        let state = &mut *state;
        let gap = not_null(gap.as_ref(), "gap");
        if !state.begun {
            let gap = ConstantInterval::new(gap, "gap");
            *state = WindowState { begun: true, gap, sessionizer: Sessionizer::new() };
        } else if !state.gap.is(gap, "gap") {
            raise(INVALID, "gap must be the same for all rows of a window partition");
        }
        if let Some(i64::MIN | i64::MAX) = time {
            raise(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "event_time must be finite");
        }
        match state.sessionizer.next(time, state.gap.length, cut) {
            Ok(started_at) => started_at.map(|started_at| (started_at, state.sessionizer.number())),
            Err(OutOfOrder) => invalid_argument(
                "event_time must not go back within a window partition",
                "Write OVER (PARTITION BY person ORDER BY event_time).",
            ),
        }
    }
}

pg_function! {
    /// Window function `sessionize`: the start of the session that the row belongs to.
    fn tidemark_sessionize(fcinfo) {
        let (started_at, _) = advance(fcinfo)?;
        Some(Datum::from(started_at))
    }
}

pg_function! {
    /// Window function `session_number`: 1 for the first session of the window partition, then 2, 3 ...
    fn tidemark_session_number(fcinfo) {
        let (_, number) = advance(fcinfo)?;
        Some(Datum::from(number))
    }
}

pg_function! {
    /// `session_id(person text, started_at timestamptz) -> uuid`, strict.
    fn tidemark_session_id(fcinfo) {
        let id = session_id(args::bytes(fcinfo, 0)?, args::timestamp(fcinfo, 1)?);
        Some(Datum::from(ContextAlloc::current().place(id)))
    }
}

/// UUIDv5 (RFC 9562) of `<person>|<microseconds since 1970-01-01 UTC>`, so that any language can compute it.
fn session_id(person: &[u8], started_at: i64) -> [u8; 16] {
    const MICROSECONDS_1970_TO_2000: i128 = 946_684_800_000_000;
    let since_1970 = i128::from(started_at) + MICROSECONDS_1970_TO_2000;
    let namespace = uuid_v5(&NAMESPACE_URL, &[SESSION_NAMESPACE]);
    uuid_v5(&namespace, &[person, b"|", since_1970.to_string().as_bytes()])
}

/// The UUID of a name, which is given in parts and may be long.
fn uuid_v5(namespace: &[u8; 16], name: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha1::from(namespace);
    for part in name.iter().flat_map(|part| part.chunks(1 << 20)) {
        pgrx::check_for_interrupts!();
        hash.update(part);
    }
    let digest = hash.digest().bytes();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id[6] = id[6] & 0x0f | 0x50;
    id[8] = id[8] & 0x3f | 0x80;
    id
}
