"""The date in an HTTP answer, for boards that have no clock of their own."""

_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def unix_time(date):
    """Unix seconds of ``Thu, 26 Nov 2026 10:43:27 GMT``; 0 for anything else."""
    try:
        _, day, month, year, time, _ = date.split()
        hour, minute, second = [int(part) for part in time.split(":")]
        month, year = _MONTHS.index(month) // 3 + 1, int(year)
    except ValueError:
        return 0
    if month <= 2:
        month, year = month + 12, year - 1
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month - 457) // 5 + int(day) - 719469
    return days * 86400 + hour * 3600 + minute * 60 + second
