# Deals the events of `tidemark-shop generate` out into four batches, three days of event time each. Every ninth event comes one
# or two batches late, every fortieth one comes twice. Lines without a time (malformed ones) go with the first batch.
# All dates must be of one month. Use: awk -v first=1 -v out=DIR -f deal.awk events.ndjson
{
    batch = 1
    if (match($0, /"timestamp":"[0-9]+-[0-9]+-[0-9]+T/)) batch = 1 + int((substr($0, RSTART + RLENGTH - 3, 2) - first) / 3)
    if (NR % 9 == 0) batch += 1 + NR % 2
    if (batch < 1) batch = 1
    if (batch > 4) batch = 4
    print > (out "/batch_" batch ".ndjson")
    if (NR % 40 == 0 && batch < 4) print > (out "/batch_" (batch + 1) ".ndjson")
}
