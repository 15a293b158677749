# %% [markdown]
# # Score a folder of photos and look at the tables
#
# Run it from a folder that has `photos/` in it. Run it again after adding photos: only the new ones are scored.

# %%
import duckdb

import skinbatch

PHOTOS, SCORES = "photos", "scored"

report = skinbatch.score(PHOTOS, SCORES)
print(f"{report.rows} photos: {report.statuses}")

# %% [markdown]
# `images` has one row for each photo, `boxes` one for each lesion. DuckDB reads both in place.

# %%
results = skinbatch.open(SCORES)
images, boxes = results.images(), results.boxes()

grades = duckdb.sql(
    """
    SELECT grade, count(*) AS photos, round(avg(count_total), 1) AS lesions
    FROM images
    WHERE status = 'ok'
    GROUP BY grade
    ORDER BY photos DESC
    """
)
print(grades)

# %% [markdown]
# Photos without a score, with the reason.

# %%
print(
    duckdb.sql("SELECT image_id, status, error FROM images WHERE status <> 'ok' ORDER BY image_id")
)

# %% [markdown]
# The photo with the most lesions, with the results drawn on it. In a notebook, end the cell with `picture`.

# %%
worst = duckdb.sql(
    "SELECT image_id FROM images WHERE status = 'ok' ORDER BY count_total DESC LIMIT 1"
).fetchall()[0][0]
picture = results.show(worst)
picture.save("worst.png")

counted = duckdb.sql("SELECT count(*) FROM boxes WHERE counted").fetchall()[0][0]
print(f"{worst} has the most lesions; {counted} are counted in all photos")
