-- Costs of tasks, spending, and the number of tasks in each state, all counted in the transaction that changes them.
alter table task add column cost real;
alter table task add column spent real not null default 0;
alter table job add column spent real not null default 0;
-- number of tasks that were sent at an unknown price
alter table job add column unpriced integer not null default 0;
-- sum of the keys of the drafts added last, equal for the same tasks in any order and under any name or directory
alter table job add column tasks text not null default '';
-- how outputs were named when the drafts were added last, null if unknown
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
