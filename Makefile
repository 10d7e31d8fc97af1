# Two commands for a newcomer: `make demo` and `make test`. Everything they do is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help demo stop clean-demo compare-demo test storm install fmt bare-chroot differential bench bench-loader bench-models bench-freshness bench-timelines bench-dimensions race histories fuzz late-event dbt bi-check deb test-matrix freeze
# Settings given as make arguments (make demo KAFKA=1) reach the scripts through the environment: make passes them on.

help:
	@echo 'make demo                      generate a shop'"'"'s events, load them, print the answers (KAFKA=1: through a real Kafka)'
	@echo 'make stop                      stop the private servers of the demo'
	@echo 'make clean-demo                stop them and delete their data'
	@echo 'make test                      everything that CI runs'
	@echo 'make storm                     load while everything is killed, then compare (SEED=1 KILLS=200 EVENTS=2000000)'
	@echo 'make install PG_CONFIG=...     build the extension and install it into a Postgres of yours'
	@echo 'make deb PG_CONFIG=...         Debian packages of the extension and the loader, into dist/'
	@echo 'make test-matrix               the tests on PostgreSQL 15 to 18, in chroots (MATRIX="17 18"; root, needs debootstrap)'
	@echo 'make freeze                    the release of this version: its scripts never change again'
	@echo 'make compare-demo              the demo from a file and through Kafka: same answers?'
	@echo 'make bare-chroot               prove demo and test in an empty Debian (root, needs debootstrap)'
	@echo 'make race MINUTES=10 SEED=1      models against a recompute, under writers, refreshers and kill -9 (OF=identity: who everybody is)'
	@echo 'make histories                 a million random histories: timelines beside the aggregates (HISTORIES=10000 for a try)'
	@echo 'make fuzz MINUTES=20            every parser of bytes and text on inputs made up (TARGET=hll for one, INPUT=FILE to repeat)'
	@echo 'make late-event                what one late event among 10 million costs (EVENTS=200000 for a try)'
	@echo 'make dbt                       the dbt package against the extension'"'"'s own models, with the real dbt'
	@echo 'make bi-check                   what a BI tool sees of the demo through JDBC (BI_URL=... for your own, BI_COLUMNS=1)'
	@echo 'make differential              compare with ClickHouse and postgresql-hll (ARGS="--quick")'
	@echo 'make bench                     the functions beside plain SQL, postgresql-hll, ClickHouse, DuckDB (ARGS="--events 1000000")'
	@echo 'make bench-models              dashboards over rollups, refreshes, growth to 100 M events (ARGS="--events 1000000")'
	@echo 'make bench-timelines           reports over a timeline beside rows and ClickHouse (ARGS="--events 1000000")'
	@echo 'make bench-dimensions          as-of joins with a slowly changing dimension, and what keeping it costs'
	@echo 'make bench-freshness           from produce to bronze, live view and refreshed model (ARGS="--seconds 20")'
	@echo 'make bench-loader              the loader beside COPY and a Python consumer (ARGS="--events 200000")'

demo:
	@scripts/demo.sh

stop:
	@scripts/stop.sh

clean-demo:
	@scripts/stop.sh --delete

compare-demo:
	@scripts/compare-demo.sh

test:
	@scripts/test.sh

storm:
	@scripts/storm.sh

install:
	@scripts/make-install.sh

deb:
	@scripts/deb.sh

test-matrix:
	@scripts/test-matrix.sh

freeze:
	@scripts/freeze.sh

fmt:
	@cargo fmt --all

bare-chroot:
	@scripts/bare-chroot.sh

differential:
	@scripts/differential.sh $(ARGS)

bench:
	@scripts/bench.sh $(ARGS)

bench-loader:
	@scripts/bench-loader.sh $(ARGS)

bench-models:
	@scripts/bench-models.sh $(ARGS)

bench-freshness:
	@scripts/bench-freshness.sh $(ARGS)

bench-timelines:
	@scripts/bench-timelines.sh $(ARGS)

bench-dimensions:
	@scripts/bench-dimensions.sh

race:
	@scripts/race.sh

histories:
	@PROPTEST_CASES=$${HISTORIES:-1000000} cargo test --locked --release -p tidemark-core --lib every_kernel_gives

fuzz:
	@scripts/fuzz.sh

late-event:
	@scripts/late-event.sh

dbt:
	@scripts/dbt.sh
bi-check:
	@scripts/bi-check.sh
