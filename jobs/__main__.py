"""Entry point of photoz-job, also as `python -m jobs`."""

from photoz import runtime


def main() -> None:
    """Run the command line and leave with its exit code."""
    # Before the imports below, which take a second or two: a stop signal must not fall into them.
    runtime.install_stop_handlers()
    from jobs.app import app
    from jobs.session import exit_code_of, leave

    leave(exit_code_of(lambda: app(standalone_mode=False)))


if __name__ == "__main__":
    main()
