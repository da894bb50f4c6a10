"""Written-out arithmetic: what the embedded model is taught to think.

Takes whole numbers and gives lines of text in which every step is local: one column at a time,
carries named, the result so far repeated at the end of each line so that the next line only
prepends a digit. Knows nothing about questions, phrasing or tokens.
"""

PLACES = ("ones", "tens", "hundreds", "thousands", "ten-thousands", "hundred-thousands")


def add_columns(a: int, b: int) -> list[str]:
    """Write a + b (both >= 0) column by column; the last line ends in the sum."""
    width = max(len(str(a)), len(str(b)))
    left, right = str(a).zfill(width), str(b).zfill(width)
    lines = [f"{left}+{right}:"]
    carry, so_far = 0, ""
    for place in range(width):
        x, y = int(left[-1 - place]), int(right[-1 - place])
        total = x + y + carry
        terms = f"{x}+{y}+1" if carry else f"{x}+{y}"
        carry, digit = divmod(total, 10)
        so_far = f"{digit}{so_far}"
        named = ", carry 1" if carry else ""
        lines.append(f"{PLACES[place]}: {terms}={total}{named} → {so_far}")
    if carry:
        so_far = f"1{so_far}"
        lines.append(f"carry: 1 → {so_far}")
    return lines


def compare_digits(a: int, b: int) -> tuple[list[str], str]:
    """Compare a and b (both >= 0) from the first digit; give the lines and `<`, `=` or `>`."""
    width = max(len(str(a)), len(str(b)))
    left, right = str(a).zfill(width), str(b).zfill(width)
    lines = [f"{left} or {right}:"]
    for place, x, y in zip(range(width - 1, -1, -1), left, right, strict=True):
        sign = "=" if x == y else "<" if x < y else ">"
        lines.append(f"{PLACES[place]}: {x}{sign}{y}")
        if sign != "=":
            break
    lines.append(f"so {a}{sign}{b}")
    return lines, sign


def subtract_columns(a: int, b: int) -> list[str]:
    """Write a - b for a >= b >= 0 column by column; the last line ends in the difference."""
    width = len(str(a))
    left, right = str(a), str(b).zfill(width)
    lines = [f"{left}-{right}:"]
    owed, so_far = 0, ""
    for place in range(width):
        x, y = int(left[-1 - place]), int(right[-1 - place])
        taken = y + owed
        prefix = f"{y}+1={taken}, " if owed else ""
        if x >= taken:
            body, digit, owed = f"{x}-{taken}={x - taken}", x - taken, 0
        else:
            digit = x + 10 - taken
            body, owed = f"{x}<{taken}, 1{x}-{taken}={digit}, borrow 1", 1
        so_far = f"{digit}{so_far}"
        lines.append(f"{PLACES[place]}: {prefix}{body} → {so_far}")
    difference = str(a - b)
    if difference != so_far:
        lines.append(f"{so_far}={difference}")
    return lines


def subtract(a: int, b: int) -> list[str]:
    """Write a - b for a, b >= 0: which is larger, the columns, and the sign if negative."""
    lines, sign = compare_digits(a, b)
    if sign == "=":
        return [*lines, f"{a}-{b}=0"]
    if sign == ">":
        return [*lines, *subtract_columns(a, b)]
    return [*lines, *subtract_columns(b, a), f"{a}-{b}=-{b - a}"]


def multiply_by_digit(a: int, digit: int) -> list[str]:
    """Write a × digit (a >= 0, 0 <= digit <= 9) column by column; the last line ends in it."""
    text = str(a)
    lines = [f"{text}×{digit}:"]
    carry, so_far = 0, ""
    for place in range(len(text)):
        x = int(text[-1 - place])
        product = x * digit
        total = product + carry
        body = f"{x}×{digit}={product}"
        if carry:
            body += f", {product}+{carry}={total}"
        carry, written = divmod(total, 10)
        so_far = f"{written}{so_far}"
        named = f", carry {carry}" if carry else ""
        lines.append(f"{PLACES[place]}: {body}{named} → {so_far}")
    if carry:
        so_far = f"{carry}{so_far}"
        lines.append(f"carry: {carry} → {so_far}")
    elif str(a * digit) != so_far:
        lines.append(f"{so_far}={a * digit}")
    return lines


def multiply(a: int, b: int) -> list[str]:
    """Write a × b for a, b >= 0, the shorter of at most two digits, by partial products."""
    if len(str(b)) > len(str(a)):
        a, b = b, a
        lines = [f"swap: {a}×{b}"]
    else:
        lines = []
    if b < 10:
        return [*lines, *multiply_by_digit(a, b)]
    tens, ones = divmod(b, 10)
    return [
        *lines,
        f"{a}×{b}: {ones} and {tens}0",
        *multiply_by_digit(a, ones),
        *multiply_by_digit(a, tens),
        f"and a zero → {a * tens * 10}",
        *add_columns(a * ones, a * tens * 10),
    ]


def divide(a: int, divisor: int) -> list[str]:
    """Write long division of a >= 0 by 1 <= divisor <= 9; the last line gives the remainder.

    Each line begins with the number at hand and, after a bar, the digits still to come.
    """
    lines = [f"{a}÷{divisor}:"]
    remainder, so_far, text = 0, "", str(a)
    for place, digit in enumerate(text):
        current = remainder * 10 + int(digit)
        quotient = current // divisor
        taken = quotient * divisor
        shown = f"{remainder}{digit}" if remainder else digit
        so_far += str(quotient)
        products = f"{quotient}×{divisor}={taken}, {shown}-{taken}={current - taken}"
        lines.append(f"{shown}|{text[place + 1 :]}: {products} → {so_far}")
        remainder = current - taken
    if str(a // divisor) != so_far:
        lines.append(f"{so_far}={a // divisor}")
    lines.append(f"remainder {remainder}")
    return lines
