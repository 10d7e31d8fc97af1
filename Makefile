# Two commands for a newcomer: `make demo` and `make test`. Everything they do is in scripts/.
.DEFAULT_GOAL := help
.PHONY: help demo stop clean-demo compare-demo test storm install schema fmt bare-chroot differential

# Settings given as make arguments (make demo KAFKA=1) reach the scripts through the environment.
export EVENTS DAYS USERS SEED KILLS KAFKA DEMO_PORT DEMO_DIR PG_CONFIG

help:
	@echo 'make demo                      generate a shop'"'"'s events, load them, print the answers (KAFKA=1: through a real Kafka)'
	@echo 'make stop                      stop the private servers of the demo'
	@echo 'make clean-demo                stop them and delete their data'
	@echo 'make test                      everything that CI runs'
	@echo 'make storm                     load while everything is killed, then compare (SEED=1 KILLS=200 EVENTS=2000000)'
	@echo 'make install PG_CONFIG=...     build the extension and install it into a Postgres of yours'
	@echo 'make schema                    regenerate extension/install/ after a change of the SQL surface'
	@echo 'make compare-demo              the demo from a file and through Kafka: same answers?'
	@echo 'make bare-chroot               prove demo and test in an empty Debian (root, needs debootstrap)'
	@echo 'make differential              compare with ClickHouse and postgresql-hll (ARGS="--quick")'

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

schema:
	@scripts/check-install-sql.sh --write

fmt:
	@cargo fmt --all

bare-chroot:
	@scripts/bare-chroot.sh

differential:
	@scripts/differential.sh $(ARGS)
