"""What it takes to keep a timeline up to date: rounds onto a date, a date of which a tenth is in parts, one late event, a dump."""

import os
import statistics
import subprocess
import time

import data
from cases import STEPS, funnel, json

TODAY = "'2026-10-01', '2026-10-02'"
QUESTIONS = {"3 steps, 1 day, with times": f"SELECT entered {funnel(json(STEPS), source='today', dates=TODAY)}",
             "sessions with exact median": f"SELECT * FROM tidemark.session_report('today', {TODAY})"}


def timed(work, clock=time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


def written(db, work) -> tuple[float, float]:
    """Seconds, and megabytes of WAL."""
    before, = db.one("SELECT pg_current_wal_insert_lsn()")
    took = timed(work)
    return took, float(db.one("SELECT (pg_current_wal_insert_lsn() - %s) / 1e6", (before,))[0])


def today(db, duck, directory: str, events: int, persons: int, rounds: int) -> None:
    """A date to which rounds add an eleventh of an hour's events each, and then one with a tenth of it in seven parts."""
    new = events * 23 // 240
    day = data.generate(events + 6 * new, persons, 1, first_day=30)
    file = os.path.join(directory, "today.tsv")

    def add(first: int, last: int) -> None:
        data.write(duck.connection, {name: column[first:last] for name, column in day.items()}, file)
        db.copy("today", file)

    def begin(first: int) -> None:
        db.execute(f"DROP TABLE IF EXISTS today; CREATE TABLE today ({data.COLUMNS}); CREATE INDEX ON today (event_date); "
                   "SELECT tidemark.track_changes('today'); SELECT tidemark.create_timeline('public.today_line', 'today', "
                   "properties => '{platform,country,page_path}')")
        add(0, first)
        db.execute("CALL tidemark.refresh('public.today_line')")

    begin(events)
    print(f"\n| {new:,} events onto {events:,} and so on | s | MB of WAL |\n|---|---:|---:|")
    for number in range(6):
        add(events + number * new, events + (number + 1) * new)
        took, wal = written(db, lambda: db.execute("CALL tidemark.refresh('public.today_line')"))
        way, = db.one("SELECT way || CASE WHEN rows_updated > 0 THEN ', parts to slices' ELSE '' END FROM tidemark.refresh_log "
                      "ORDER BY id DESC LIMIT 1")
        print(f"| {number + 1}: {way} | {took:.3f} | {wal:.2f} |", flush=True)
    db.execute("SELECT tidemark.untrack_changes('today'); SELECT tidemark.drop_timeline('public.today_line')")

    part = events // 70
    begin(events - 7 * part)
    for first in range(events - 7 * part, events, part):
        add(first, first + part)
        db.execute("CALL tidemark.refresh('public.today_line')")
    parts, = db.one("SELECT count(DISTINCT part) - 1 FROM today_line")
    times = {title: {} for title in QUESTIONS}

    def ask(when: str) -> dict:
        answers = {title: db.rows(sql) for title, sql in QUESTIONS.items()}
        for title, sql in QUESTIONS.items():
            times[title][when] = statistics.median(timed(lambda: db.rows(sql), db.cpu) for _ in range(2 * rounds + 1))
        return answers

    db.execute("VACUUM (ANALYZE) today_line")
    in_parts = ask("parts")
    db.run("SELECT tidemark.mark_dirty('today', '{2026-10-01}')", "CALL tidemark.refresh('public.today_line')", "VACUUM (ANALYZE) today_line")
    if ask("slices") != in_parts:
        raise SystemExit("WRONG: a date in parts answers otherwise than the same one compacted")
    print(f"\n| {events:,} events of today, a tenth of them in {parts} parts | CPU ms | compacted | ratio |\n|---|---:|---:|---:|")
    for title, of in times.items():
        print(f"| {title} | {1000 * of['parts']:.1f} | {1000 * of['slices']:.1f} | {of['parts'] / of['slices']:.2f} |", flush=True)


def late_event(db, report: str) -> None:
    """One more event on a date of the long timeline."""
    before = db.rows(report)
    usual = timed(lambda: db.rows(report))
    db.execute("SELECT tidemark.track_changes('events')")
    db.execute("INSERT INTO events SELECT '2026-09-10', '2026-09-10 12:00:00.5Z', 'user_late', 'product_viewed', 'web'")
    live = timed(lambda: db.rows(report))
    after = db.rows(report)
    took, wal = written(db, lambda: db.execute("CALL tidemark.refresh('public.timeline')"))
    way, = db.one("SELECT way FROM tidemark.refresh_log ORDER BY id DESC LIMIT 1")
    if after == before or db.rows(report) != after:
        raise SystemExit("WRONG: a late event is not in the answer")
    print(f"\nOne late event: {live:.3f} s until the answer has it ({usual:.3f} s without one), {took:.3f} s and {1000 * wal:.1f} kB of WAL until "
          f"it is stored ({way})", flush=True)


def dump(url: str, directory: str, pg_bin: str) -> None:
    file = os.path.join(directory, "dump")
    took = timed(lambda: subprocess.run([os.path.join(pg_bin, "pg_dump"), "-Fc", "-Z1", "-t", "public.timeline*", "-f", file, url], check=True))
    print(f"\nDump, compressed: {os.path.getsize(file) / 1e6:.1f} MB in {took:.1f} s", flush=True)
    os.unlink(file)
