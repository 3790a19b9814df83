-- What a task buys, however its manifest writes it: 32 hex digits. Empty where it is not known, as of a row that an
-- older version made: the next run computes it.
alter table task add column goods text not null default '';
-- only of what was ever sent, so that a million new drafts need no entries
create index task_goods on task (goods) where submitted_at is not null;
-- position that a draft had before it left the manifest; null: it has not, or not lately
alter table draft add column last_position integer;

-- a row that was never sent makes room for one that bought the same goods
create trigger task_uncounted after delete on task begin
  update tally set count = count - 1
    where provider = old.provider and state = old.state and gone = (old.state = 'queued' and old.due_at is null);
end;
