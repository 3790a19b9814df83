-- Fast answers for a million tasks: an index of open states, counts by provider, and errors by their reason.
drop index task_due;
drop index task_on_wire;
-- not partial, since SQLite uses no partial index for `state in (…)`
create index task_state on task (state, provider, due_at);
create index task_faults on task (state, reason) where reason is not null;

drop trigger task_counted;
drop trigger task_moved;
drop table tally;
create table tally (
  provider text not null,
  state text not null,
  -- not to be bought, since its draft has left the manifest
  gone integer not null check (gone in (0, 1)),
  count integer not null,
  primary key (provider, state, gone)
) strict, without rowid;

create trigger task_counted after insert on task begin
  update tally set count = count + 1
    where provider = new.provider and state = new.state and gone = (new.state = 'queued' and new.due_at is null);
end;
-- before the first task of a provider is counted
create trigger task_first before insert on task when not exists (select 1 from tally where provider = new.provider) begin
  insert into tally select new.provider, column1, column2, 0
    from (values ('queued', 0), ('queued', 1), ('submitting', 0), ('in_doubt', 0), ('held', 0), ('running', 0),
      ('ready', 0), ('done', 0), ('failed', 0), ('stranded', 0));
end;
create trigger task_moved after update of state, due_at on task
  when old.state <> new.state or (new.state = 'queued' and (old.due_at is null) <> (new.due_at is null))
begin
  update tally set count = count - 1
    where provider = old.provider and state = old.state and gone = (old.state = 'queued' and old.due_at is null);
  update tally set count = count + 1
    where provider = new.provider and state = new.state and gone = (new.state = 'queued' and new.due_at is null);
end;

insert into tally select provider, column1, column2, 0
  from (select distinct provider from task), (values ('queued', 0), ('queued', 1), ('submitting', 0), ('in_doubt', 0),
    ('held', 0), ('running', 0), ('ready', 0), ('done', 0), ('failed', 0), ('stranded', 0));
update tally set count = (select count(*) from task where task.provider = tally.provider and task.state = tally.state
  and (task.state = 'queued' and task.due_at is null) = tally.gone);
