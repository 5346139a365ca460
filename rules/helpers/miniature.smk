def find_row(rows, name):
    return next(row for row in rows if row["name"] == name)
