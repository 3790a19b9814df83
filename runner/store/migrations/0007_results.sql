-- What changed since results.jsonl was written, what tasks are made with, and which of them ended last.
-- raised whenever drafts are added: lines may stand elsewhere then
alter table job add column arrangement integer not null default 0;
-- mark of the index that fits results.jsonl, empty if none does
alter table job add column results text not null default '';

create table changed (
  task_id integer primary key,
  -- being written now; a further change makes it 0 again
  taken integer not null default 0 check (taken in (0, 1))
) strict;

create trigger task_changed after update of state, spent, remote_id, attempts, doubts, submitted_at, finished_at, reason,
  code, message, evidence on task
begin
  insert into changed (task_id) values (new.id) on conflict (task_id) do update set taken = 0 where taken = 1;
end;
create trigger output_changed after update of file, bytes, sha256, media_type on output begin
  insert into changed (task_id) values (new.task_id) on conflict (task_id) do update set taken = 0 where taken = 1;
end;

create table operation (
  provider text not null,
  operation text not null,
  model text not null,
  primary key (provider, operation, model)
) strict, without rowid;
insert into operation select distinct provider, operation, model from task;

drop trigger task_first;
-- before the first task of a provider is counted
create trigger task_first before insert on task when not exists (
  select 1 from operation where provider = new.provider and operation = new.operation and model = new.model)
begin
  insert into tally select new.provider, column1, column2, 0
    from (values ('queued', 0), ('queued', 1), ('submitting', 0), ('in_doubt', 0), ('held', 0), ('running', 0),
      ('ready', 0), ('done', 0), ('failed', 0), ('stranded', 0))
    where not exists (select 1 from tally where provider = new.provider);
  insert into operation values (new.provider, new.operation, new.model);
end;

-- Of what has ended, so that a million new drafts need no entries. A state rebuilt from its journal does not know when.
create index task_ended on task (state, finished_at) where finished_at is not null or state = 'done';
