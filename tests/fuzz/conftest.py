"""What came of fuzzed inputs is said at the end."""

from fuzz.outcomes import counts


def pytest_terminal_summary(terminalreporter):
    for name, found in sorted(counts.items()):
        total = ", ".join(f"{n:,} {what}" for what, n in sorted(found.items()))
        terminalreporter.write_line(f"{name}: {total}")
