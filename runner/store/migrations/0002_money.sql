-- What tasks cost, what was spent, and how many tasks are in each state: counted in the transaction that changes them.
alter table task add column cost real;
alter table task add column spent real not null default 0;
alter table job add column spent real not null default 0;
-- tasks that were sent although nobody knows their price
alter table job add column unpriced integer not null default 0;
-- sum of the keys of the drafts that were added last: the same tasks, whatever their order, name and directory
alter table job add column tasks text not null default '';
-- how outputs were named when the drafts were added last; null: nobody knows
alter table job add column naming text;
update job set unpriced = (select count(*) from task where submitted_at is not null);

create trigger task_spent after update of spent on task when old.spent <> new.spent begin
  update job set spent = round(spent + new.spent - old.spent, 6) where id = 1;
end;
create trigger task_unpriced after update of submitted_at on task
  when old.submitted_at is null and new.submitted_at is not null and new.cost is null
begin
  update job set unpriced = unpriced + 1 where id = 1;
end;

create table tally (
  state text primary key,
  count integer not null
) strict, without rowid;
insert into tally values ('queued', 0), ('submitting', 0), ('in_doubt', 0), ('held', 0), ('running', 0), ('ready', 0),
  ('done', 0), ('failed', 0), ('stranded', 0);
update tally set count = (select count(*) from task where task.state = tally.state);

create trigger task_counted after insert on task begin
  update tally set count = count + 1 where state = new.state;
end;
create trigger task_moved after update of state on task when old.state <> new.state begin
  update tally set count = count - 1 where state = old.state;
  update tally set count = count + 1 where state = new.state;
end;
