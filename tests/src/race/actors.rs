//! Refreshers, those who cancel, terminate and kill, and who changes definitions.

use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Race;
use super::world::MODELS;

/// Key of the advisory lock that keeps definitions as they are while a judge looks through an old snapshot: what a view
/// is defined as does not follow snapshots.
pub(super) const DEFINITIONS: i64 = 7_205_759;

/// Refreshes until the race ends.
pub(super) fn refresh(race: &Race<'_>, number: u64) {
    let mut random = race.random(200 + number);
    race.repeat("race-refresher", |client| {
        {
            let _open = race.gate.read().unwrap_or_else(PoisonError::into_inner);
            if race.stopped() {
                return Ok(());
            }
            let zone = random.pick(&["UTC", "Asia/Kathmandu", "America/St_Johns"]);
            client.batch_execute(&format!("SET timezone = '{zone}'"))?;
            let call = match random.below(10) {
                0..6 => "NULL, NULL".to_owned(),
                6 | 7 => format!("NULL, {}", 1 + random.below(5)),
                _ => format!("'race.{}', NULL", random.pick(&MODELS).name),
            };
            client.batch_execute(&format!("CALL tidemark.refresh({call})"))?;
            race.note(|r| r.refreshes += 1);
        }
        race.sleep(Duration::from_millis(random.below(150)));
        Ok(())
    });
}

/// Cancels statements, ends connections and kills backends until the race ends: mostly those of refreshers.
pub(super) fn disturb(race: &Race<'_>) {
    let mut random = race.random(300);
    let mut since_crash = 0;
    race.repeat("race-disturber", |client| {
        race.sleep(Duration::from_millis(200 + random.below(1800)));
        let _open = race.gate.read().unwrap_or_else(PoisonError::into_inner);
        if race.stopped() {
            return Ok(());
        }
        let whom = if random.percent(85) { "race-refresher" } else { "race-writer" };
        let pids: Vec<i32> = client
            .query(
                "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database()
                  AND (state = 'active' OR $1 = 'race-writer') ORDER BY pid",
                &[&whom],
            )?
            .iter()
            .map(|row| row.get(0))
            .collect();
        if pids.is_empty() {
            return Ok(());
        }
        let pid = random.pick(&pids);
        // Wherever in its work it is by then.
        std::thread::sleep(Duration::from_millis(random.below(30)));
        since_crash += 1;
        let kind = if race.options.crash_every > 0 && since_crash >= race.options.crash_every {
            since_crash = 0;
            if !kill_9(pid) {
                return Ok(());
            }
            // Nobody may be brought to rest before the server has noticed.
            let killed = Instant::now();
            while client.simple_query("SELECT 1").is_ok() && killed.elapsed() < Duration::from_secs(30) {
                std::thread::sleep(Duration::from_millis(5));
            }
            2
        } else if random.percent(25) {
            client.execute("SELECT pg_cancel_backend($1)", &[&pid])?;
            0
        } else {
            client.execute("SELECT pg_terminate_backend($1)", &[&pid])?;
            1
        };
        race.note(|r| r.disturbed[kind] += 1);
        Ok(())
    });
}

/// Kills a backend the hard way, so that the postmaster restarts everything. False if it is gone already.
pub fn kill_9(pid: i32) -> bool {
    // The number may be somebody else's by now.
    let is_backend =
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with("postgres: "));
    // The shell's own kill: a minimal Debian has no program of that name.
    is_backend
        && Command::new("sh")
            .args(["-c", r#"kill -s KILL "$0""#, &pid.to_string()])
            .status()
            .is_ok_and(|s| s.success())
}

/// Changes the definition of some model now and then.
pub(super) fn redefine(race: &Race<'_>) {
    let mut random = race.random(400);
    race.repeat("race-definer", |client| {
        race.sleep(Duration::from_millis(2000 + random.below(6000)));
        let _open = race.gate.read().unwrap_or_else(PoisonError::into_inner);
        if race.stopped() {
            return Ok(());
        }
        let model = random.pick(&MODELS);
        let factor = 1 + random.below(3);
        client.execute("SELECT pg_advisory_lock($1)", &[&DEFINITIONS])?;
        let result = client.batch_execute(&format!(
            "BEGIN; UPDATE race.factors SET factor = {factor} WHERE model = '{}'; {}; COMMIT",
            model.name,
            model.definition(factor)
        ));
        client.batch_execute("ROLLBACK")?;
        client.execute("SELECT pg_advisory_unlock($1)", &[&DEFINITIONS])?;
        result?;
        race.note(|r| r.redefined += 1);
        Ok(())
    });
}
