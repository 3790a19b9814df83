-- Tasks and their drafts, their outputs, and what the job has recorded of its providers.
create table job (
  id integer primary key check (id = 1),
  uuid text not null,
  -- the manifest's name: one directory is one job
  name text not null default '',
  created_at real not null,
  -- raised by every run; a writer of an older epoch changes nothing
  epoch integer not null default 0,
  -- of the drafts that were added last, so that an unchanged manifest need not be added again
  digest text not null default '',
  -- how much of the journal this database knows, bytes
  journal integer not null default 0
) strict;

create table provider (
  name text primary key,
  -- scheme, host and port: ids of one origin mean nothing at another
  origin text not null,
  -- hash of the account's public name; empty where the credentials do not tell it
  account text not null default ''
) strict;

create table task (
  id integer primary key,
  key text not null unique,
  provider text not null,
  operation text not null,
  model text not null,
  state text not null check (state in
    ('queued', 'submitting', 'in_doubt', 'held', 'running', 'ready', 'done', 'failed', 'stranded')),
  due_at real,
  generation integer not null default 1 check (generation > 0),
  ref text not null,
  fingerprint text not null default '',
  slots integer not null default 1 check (slots > 0),
  remote_id text,
  attempts integer not null default 0,
  throttles integer not null default 0,
  doubts integer not null default 0,
  looks integer not null default 0,
  failures integer not null default 0,
  refreshes integer not null default 0,
  adopted integer not null default 0 check (adopted in (0, 1)),
  sent_boot text,
  sent_seconds real,
  submitted_at real,
  since real,
  finished_at real,
  reason text,
  code text,
  message text,
  evidence text not null default '',
  -- what is paid has an id; what is still to be bought has none
  check (state not in ('running', 'ready', 'done', 'stranded') or remote_id is not null),
  check (state not in ('queued', 'submitting', 'in_doubt', 'held') or remote_id is null),
  check (state <> 'submitting' or (sent_boot is not null and sent_seconds is not null))
) strict;

-- A remote task belongs to at most one task of ours.
create unique index task_remote on task (provider, remote_id) where remote_id is not null;
create unique index task_ref on task (ref);
create index task_due on task (provider, state, due_at) where due_at is not null;
create index task_on_wire on task (provider) where state = 'submitting';
create index task_twins on task (fingerprint, state, adopted) where fingerprint <> '';

-- Remote ids that a task no longer has, of earlier purchases for example: they stay claimed, and match no lost send.
create table former (
  provider text not null,
  remote_id text not null,
  primary key (provider, remote_id)
) strict, without rowid;

create table draft (
  task_id integer primary key references task (id) on delete cascade,
  -- in the manifest, from 1; null: it left the manifest
  position integer,
  repeat integer not null,
  vars text not null,
  request text not null,
  name text not null,
  queued_at real not null
) strict;
create index draft_position on draft (position);

create table output (
  task_id integer not null references task (id) on delete cascade,
  number integer not null check (number > 0),
  url text not null,
  file text,
  bytes integer,
  sha256 text,
  media_type text,
  primary key (task_id, number)
) strict, without rowid;

-- Request fields that a provider's list returns unchanged, learned from accepted tasks.
create table echo (
  provider text not null,
  model text not null,
  field text not null,
  verbatim integer not null check (verbatim in (0, 1)),
  primary key (provider, model, field)
) strict, without rowid;

insert into job (id, uuid, created_at) values (1, lower(hex(randomblob(16))), (julianday('now') - 2440587.5) * 86400.0);
