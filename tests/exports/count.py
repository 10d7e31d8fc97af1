#!/usr/bin/env python3
"""Counts what is in the sample exports beside it, without any of tidemark's code: a reader for each system, and then
rows, page views, purchases, persons, sessions and channels by the definitions of the documentation. Prints a JSON
object of these for each system. The client test `exports` compares them with what tidemark makes of the same files.

The files are written after the documentation of each system's export, with records that are awkward in the ways that
each is known for; none is a copy of anybody's data."""
import csv
import json
import os
import re
import shlex
from collections import Counter, defaultdict
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from urllib.parse import parse_qsl, urlsplit

HERE = os.path.dirname(os.path.abspath(__file__))
OWN = "shop.example"
PAGES = {"page", "screen", "screen_view", "page_viewed", "page_view", "$pageview", "$mp_web_page_view", "[Amplitude] Page Viewed"}
PURCHASES = {"Order Completed", "order_completed", "purchase", "transaction"}
NOBODY = {"", "null", "undefined", "none", "anonymous"}
SEARCH = ("google.", "bing.")
SOCIAL = ("t.co",)


def text(name):
    return open(os.path.join(HERE, name), encoding="utf-8", newline="").read()


def json_lines(name):
    return [json.loads(line, parse_float=Decimal) for line in text(name).splitlines()]


def rows(name):
    return list(csv.DictReader(text(name).splitlines(keepends=True)))


def when(written, offset=0):
    time = datetime.fromisoformat(written.replace("Z", "+00:00"))
    return time if time.tzinfo else time.replace(tzinfo=timezone(timedelta(hours=offset)))


def epoch(number, per_second):
    return datetime.fromtimestamp(0, timezone.utc) + timedelta(microseconds=int(number) * (1_000_000 // per_second))


class Event:
    def __init__(self, id, time, type, user, device, url=None, path=None, referrer=None, tags=None, revenue=None,
                 currency=None, order=None, items=None, view=None):
        self.id, self.time, self.type, self.url, self.referrer = id, time, type, url, referrer
        self.is_view = type in PAGES if view is None else view
        self.is_purchase = type in PURCHASES
        self.revenue, self.currency, self.order, self.items = revenue, currency, order, items
        self.user, self.device = (str(i) if i is not None and str(i).lower() not in NOBODY else None
                                  for i in (user, device))
        self.has_page = bool(url or path)
        self.tags = {k: v for k, v in dict(parse_qsl(urlsplit(url or "").query)).items()}
        self.tags.update({k: v for k, v in (tags or {}).items() if v})
        host = (urlsplit(referrer or "").hostname or "").removeprefix("www.")
        self.from_host = host if host and host != OWN else None

    def touch(self):
        tags = [self.tags.get(k) for k in ("utm_source", "utm_medium", "utm_campaign", "gclid")]
        return (*tags, self.from_host) if any(tags) or self.from_host else None


def channel(touch, has_page):
    if touch is None:
        return "Direct" if has_page else "Unknown"
    source, medium, campaign, gclid, host = touch
    search = source == "google" or (not source and host and host.removeprefix("www.").startswith(SEARCH))
    if medium == "cpc" or gclid:
        return "Paid Search" if search else "Paid Other"
    if medium == "email":
        return "Email"
    if search:
        return "Organic Search"
    return "Organic Social" if host in SOCIAL else "Referral"


def quantity(lines):
    return sum(int(line.get("quantity") or 1) for line in lines) if lines is not None else None


def segment(name):
    for record in json_lines(name):
        for e in record.get("batch", [record]):
            page, campaign, p = (e.get("context") or {}).get("page") or {}, e["context"].get("campaign") or {}, \
                e.get("properties") or {}
            yield Event(e["messageId"], when(e.get("timestamp") or e["originalTimestamp"]),
                        e.get("event") or e["type"], e.get("userId"), e.get("anonymousId"), page.get("url"),
                        page.get("path"), page.get("referrer"),
                        {"utm_" + {"name": "campaign"}.get(k, k): v for k, v in campaign.items()},
                        p.get("revenue"), p.get("currency"), p.get("order_id"), quantity(p.get("products")))


def segment_warehouse():
    for row in rows("segment-pages.csv"):
        tags = {"utm_" + k: row["context_campaign_" + ("name" if k == "campaign" else k)]
                for k in ("source", "medium", "campaign")}
        yield Event(row["id"], when(row["timestamp"]), "page_viewed", row["user_id"], row["anonymous_id"], row["url"],
                    row["path"], row["referrer"], tags)
    for row in rows("segment-order-completed.csv"):
        yield Event(row["id"], when(row["timestamp"]), row["event"], row["user_id"], row["anonymous_id"],
                    row["context_page_url"], None, row["context_page_referrer"], None, Decimal(row["revenue"]),
                    row["currency"], row["order_id"], quantity(json.loads(row["products"])))


def cloudevents():
    for e in json.loads(text("cloudevents.json"), parse_float=Decimal):
        d = e["data"]
        # Nowhere does the specification say where a page stands, so nobody knows where a visit came from.
        yield Event((e["source"], e["id"]), when(e["time"]), e["type"], d.get("userId"), d.get("anonymousId"),
                    revenue=d.get("revenue"), currency=d.get("currency"), order=d.get("order_id"),
                    items=quantity(d.get("products")))


def snowplow_json():
    for e in json_lines("snowplow.ndjson"):
        yield snowplow(e)


# The columns of the canonical event model, as far as they are needed here, by their place.
SNOWPLOW_PLACES = {
    "event_id": 6, "user_id": 12, "domain_userid": 15, "network_userid": 17, "page_url": 29, "page_referrer": 31, "page_urlpath": 35,
    "mkt_medium": 47, "mkt_source": 48, "mkt_campaign": 51, "tr_orderid": 59, "tr_total": 61, "tr_currency": 108,
    "derived_tstamp": 124, "event_name": 126,
}


def snowplow_tsv():
    for line in text("snowplow.tsv").splitlines():
        cells = line.split("\t")
        assert len(cells) == 131
        yield snowplow({name: cells[at] or None for name, at in SNOWPLOW_PLACES.items()})


def snowplow(e):
    total = e.get("tr_total")
    app = e.get("contexts_com_snowplowanalytics_snowplow_client_session_1") or [{}]
    return Event(e["event_id"], when(e["derived_tstamp"]), e["event_name"], e.get("user_id"),
                 e.get("domain_userid") or app[0].get("userId") or e.get("network_userid"),
                 e.get("page_url"), e.get("page_urlpath"), e.get("page_referrer"),
                 {"utm_" + k: e.get("mkt_" + k) for k in ("source", "medium", "campaign")},
                 Decimal(total) if total is not None else None, e.get("tr_currency"), e.get("tr_orderid"))


def posthog():
    for e in json_lines("posthog.ndjson"):
        p = e["properties"]
        user = p.get("$user_id") or (e["distinct_id"] if e["distinct_id"] != p.get("$device_id") else None)
        referrer = p.get("$referrer") if p.get("$referrer") != "$direct" else None
        yield Event(e["uuid"], when(e["timestamp"]), e["event"], user, p.get("$device_id"), p.get("$current_url"),
                    p.get("$pathname"), referrer, {k: v for k, v in p.items() if k.startswith("utm_")},
                    p.get("revenue"), p.get("currency"), p.get("order_id"), quantity(p.get("products")))


def mixpanel():
    for e in json_lines("mixpanel.ndjson"):
        p = e["properties"]
        user = p.get("$user_id")
        if user is None and not str(p["distinct_id"]).startswith("$device:"):
            user = p["distinct_id"]
        yield Event((e["event"], p["$insert_id"]), epoch(p["time"], 1), e["event"], user, p.get("$device_id"),
                    p.get("$current_url"), None, p.get("$referrer"),
                    {k: v for k, v in p.items() if k.startswith("utm_")}, p.get("revenue"), p.get("currency"),
                    p.get("order_id"), quantity(p.get("products")))


def amplitude():
    for e in json_lines("amplitude.ndjson"):
        p = {k: v for k, v in e["event_properties"].items() if v != "EMPTY"}
        yield Event(e["uuid"], when(e["event_time"]), e["event_type"], e["user_id"], e["device_id"],
                    p.get("[Amplitude] Page Location"), p.get("[Amplitude] Page Path"), p.get("referrer"),
                    {k: v for k, v in p.items() if k.startswith("utm_")}, p.get("revenue"), p.get("currency"),
                    p.get("order_id"), quantity(p.get("products")))


def ga4():
    for line in text("ga4.ndjson").splitlines():
        e = json.loads(line, parse_float=Decimal)
        p = {q["key"]: next(iter(q["value"].values())) for q in e["event_params"]}
        tags = e.get("collected_traffic_source") or {}
        tags = {"utm_source": tags.get("manual_source"), "utm_medium": tags.get("manual_medium"),
                "utm_campaign": tags.get("manual_campaign_name"), "gclid": tags.get("gclid")}
        sold = e.get("ecommerce") or {}
        # Its events have no id: one that says the same is the same.
        yield Event(line, epoch(e["event_timestamp"], 1_000_000), e["event_name"], e["user_id"], e["user_pseudo_id"],
                    p.get("page_location"), None, p.get("page_referrer"), tags, sold.get("purchase_revenue"),
                    p.get("currency"), sold.get("transaction_id"), quantity(e["items"]) if sold else None)


def matomo():
    for visit in json.loads(text("matomo.json"), parse_float=Decimal):
        campaign = visit["referrerType"] == "campaign"
        tags = {"utm_source": visit["campaignSource"], "utm_campaign": visit["campaignName"],
                "utm_medium": visit["campaignMedium"]} if campaign else {}
        for a in visit["actionDetails"]:
            # An outlink's address is not that of a page of the site.
            url = None if a["type"] in ("outlink", "download") else a.get("url")
            name = {"action": "page_view", "ecommerceOrder": "purchase"}.get(a["type"]) or a.get("eventAction") \
                or a["type"]
            id = a.get("pageId") or a.get("orderId") or (a.get("goalId"), a["timestamp"])
            lines = a.get("itemDetails")
            yield Event((visit["idVisit"], id), epoch(a["timestamp"], 1), name, visit["userId"], visit["visitorId"],
                        url, None, visit["referrerUrl"], tags, a.get("revenue") if lines else None,
                        visit["siteCurrency"] if lines else None, a.get("orderId"), quantity(lines))


def umami():
    for row in rows("umami.csv"):
        url = "https://" + row["hostname"] + row["url_path"] + ("?" + row["url_query"] if row["url_query"] else "")
        referrer = "https://" + row["referrer_domain"] + row["referrer_path"] if row["referrer_domain"] else None
        yield Event(row["event_id"], when(row["created_at"]), row["event_name"] or "page_viewed", row["distinct_id"],
                    row["session_id"], url, row["url_path"], referrer,
                    {k: v for k, v in row.items() if k.startswith("utm_")})


def access_log():
    form = re.compile(r'(\S+) \S+ (\S+) \[([^]]+)\] "((?:[^"\\]|\\.)*)" (\d+) (\S+) "((?:[^"\\]|\\.)*)" ".*"$')
    for n, line in enumerate(text("access.txt").splitlines()):
        address, user, time, request, status, size, referrer = form.match(line).groups()
        words = request.split(" ")
        path = words[1] if len(words) == 3 else None
        # Requests are no page views. An address stands for a device only because the load says so.
        yield Event(n, datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z"), "request", None if user == "-" else user,
                    address, path, path, None if referrer == "-" else referrer)


SYSTEMS = {
    "segment": (segment("segment.ndjson"), ["segment.ndjson"]),
    "rudderstack": (segment("rudderstack.ndjson"), ["rudderstack.ndjson"]),
    "segment-warehouse": (segment_warehouse(), [
        "segment-pages.csv --envelope event_type==page_viewed", "segment-order-completed.csv"]),
    "cloudevents": (cloudevents(), ["cloudevents.json"]),
    "snowplow": (snowplow_json(), ["snowplow.ndjson"]),
    "snowplow (TSV)": (snowplow_tsv(), ["snowplow.tsv"]),
    "posthog": (posthog(), ["posthog.ndjson"]),
    "mixpanel": (mixpanel(), ["mixpanel.ndjson"]),
    "amplitude": (amplitude(), ["amplitude.ndjson"]),
    "ga4": (ga4(), ["ga4.ndjson"]),
    "matomo": (matomo(), ["matomo.json"]),
    "umami": (umami(), ["umami.csv"]),
    "access-log": (access_log(), ["access.txt --envelope anonymous_id=/remote_addr"]),
}


def know(events):
    # A device is its last user's, and before the first login that one's.
    logins = defaultdict(list)
    for e in sorted(events, key=lambda e: (e.time, e.user or "")):
        if e.user and e.device:
            logins[e.device].append((e.time, e.user))
    for e in events:
        users = logins.get(e.device) or [(e.time, e.device)]
        before = [(time, user) for time, user in users if time <= e.time]
        e.person = e.user or (min(u for t, u in before if t == before[-1][0]) if before else users[0][1])


def count(all_events):
    read, events = 0, {}
    for e in all_events:
        read += 1
        events.setdefault(e.id, e)
    events = sorted(events.values(), key=lambda e: e.time)
    know(events)
    sessions, last = defaultdict(list), {}
    for e in events:
        if e.person is None:
            continue
        if e.person not in last or e.time - last[e.person][0] > timedelta(minutes=30):
            last[e.person] = (e.time, (e.person, e.time))
        last[e.person] = (e.time, last[e.person][1])
        sessions[last[e.person][1]].append(e)
    channels = Counter()
    for session in sessions.values():
        touch = next((e.touch() for e in session if e.touch()), None)
        channels[channel(touch, any(e.has_page for e in session))] += 1
    purchases = sorted(f"{e.order} {Decimal(e.revenue).normalize():f} {e.currency} {e.items}" if e.revenue is not None
                       else "None" for e in events if e.is_purchase)
    return {"read": read, "rows": len(events), "page_views": sum(e.is_view for e in events), "purchases": purchases,
            "persons": len({e.person for e in events} - {None}), "sessions": len(sessions), "channels": channels}


for system, (all_events, files) in SYSTEMS.items():
    print(json.dumps({"system": system, "files": [shlex.split(f) for f in files], **count(all_events)}))
