-- name: job
-- The job's identity, epoch and digest.
select uuid, epoch, digest, tasks, naming, journal, spent from job where id = 1

-- name: raise_epoch
-- A new run begins; older writers are fenced off. It has a name that no other run has, nor one of a copy of the job.
update job set epoch = epoch + 1 where id = 1 returning epoch, lower(hex(randomblob(8))) as run

-- name: epoch
-- Which run is the writer.
select epoch from job where id = 1

-- name: name
-- Which job lives here.
select name from job where id = 1

-- name: set_name
-- The first manifest that comes gives the job its name.
update job set name = :name where id = 1

-- name: set_journal
-- How much of the journal the database knows from now on.
update job set journal = :journal where id = 1

-- name: set_identity
-- A rebuilt database takes the journal's identity.
update job set uuid = :uuid, epoch = :epoch where id = 1

-- name: by_ref
-- The task that a reference belongs to.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id where ref = :ref

-- name: restore
-- Make a row what the journal says; the only write that no state guards.
update task set state = :state, due_at = :due_at, generation = :generation, ref = :ref, spent = :spent,
    remote_id = :remote_id, attempts = :attempts, throttles = :throttles, doubts = :doubts, looks = :looks, failures = :failures,
    refreshes = :refreshes, adopted = :adopted, sent_boot = :sent_boot, sent_seconds = :sent_seconds,
    submitted_at = :submitted_at, since = :since, finished_at = :finished_at,
    reason = :reason, code = :code, message = :message, evidence = :evidence
  where id = :id

-- name: restore_output
-- A file that the journal knows of.
insert into output (task_id, number, url, file, bytes, sha256, media_type)
  values (:task_id, :number, '', :file, :bytes, :sha256, :media_type)
  on conflict (task_id, number) do nothing

-- name: set_digest
-- Remember which drafts were added last, and the sum of their keys.
update job set digest = :digest, tasks = :tasks, naming = :naming where id = 1

-- name: spent
-- What the job has cost at the most.
select spent from job where id = 1

-- name: ever_bought
-- Whether a request was ever sent; only asked of a job that its account has not heard of.
select exists (select 1 from task where submitted_at is not null)

-- name: origin
-- Where a provider's tasks of this job live.
select origin, account from provider where name = :name

-- name: set_origin
-- Remember where a provider's tasks of this job live.
insert into provider (name, origin, account) values (:name, :origin, :account)
  on conflict (name) do update set origin = excluded.origin, account = excluded.account

-- name: bound
-- Every provider that this job has ever asked.
select name from provider

-- name: at_stake
-- Whether anything of a provider is paid, or may be, and not here yet.
select exists (select 1 from task where provider = :provider and state in ('submitting', 'in_doubt', 'held'))
    or exists (select 1 from task where provider = :provider and state in ('running', 'ready') and due_at is not null)

-- name: rest_queued
-- Tasks that are not bought yet wait until their drafts are seen again.
update task set due_at = null where state = 'queued' and due_at is not null

-- name: forget_positions
-- No draft has a place in the manifest until it is seen again.
update draft set position = null where position is not null

-- name: add_task
-- A draft becomes a row; a key that is there already is left as it is, and wanted again. Its pictures may have moved.
insert into task (key, provider, operation, model, state, due_at, ref, fingerprint, slots, cost, pictures)
  values (:key, :provider, :operation, :model, 'queued', 0, :ref, :fingerprint, :slots, :cost, :pictures)
  on conflict (key) do update set due_at = case state when 'queued' then 0 else due_at end,
    cost = case when state in ('queued', 'failed') then excluded.cost else cost end,
    pictures = case when :gone then pictures else excluded.pictures end
    where state in ('queued', 'failed') or (pictures <> excluded.pictures and not :gone)

-- name: add_draft
-- The cold half of a row; a name changes only while there are no files under it.
insert into draft (task_id, position, repeat, vars, request, name, queued_at)
  select id, :position, :repeat, :vars, :request, :name, :now from task where key = :key
  on conflict (task_id) do update set position = coalesce(excluded.position, position),
    vars = case when excluded.position is null then vars else excluded.vars end,
    name = case when not :rename and (select state from task where id = task_id) in ('done', 'ready') then name
      else excluded.name end

-- name: wake
-- At the start of a run everything that is paid or in doubt is looked at once, whatever the clock said; looks that
-- must lie apart are counted anew, since this one may follow the last at once. What is to be bought waits no longer than
-- the longest wait there is (15 minutes), and patience runs from now at the latest: a wall clock that was set back would
-- make a minute a day, and patience endless. After a long pause there is some patience left for each run (`since`).
update task set due_at = case state when 'queued' then :now + 900.0 else :now end, failures = 0, looks = 0,
    since = min(max(since, :since), :now)
  where id in (
    select id from task where state in ('running', 'ready', 'in_doubt')
    union all
    -- in this order, or a million would be looked at
    select task.id from tally cross join task on task.state = 'queued' and task.provider = tally.provider
        and task.due_at > :now + 900.0
      where tally.state = 'queued' and not tally.gone and tally.count > 0)

-- name: claim_queued
-- The next task to buy: due, within the window, and no twin of it in doubt; not those that wait for their pictures.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where provider = :provider and state = 'queued' and due_at <= :now and slots <= :room
    and id not in (select value from json_each(:held))
    and (fingerprint = '' or not exists (
      select 1 from task as twin where twin.fingerprint = task.fingerprint and twin.fingerprint <> '' and twin.state = 'in_doubt'))
  order by due_at, id limit 1

-- name: claim
-- Due tasks of one state, the longest due first.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where provider = :provider and state = :state and due_at <= :now
    and id not in (select value from json_each(:held))
  order by due_at, id limit :limit

-- name: claim_group
-- Due tasks of one state whose operations can share a call, filled up with those due soon.
select task.*, '' as request, '' as name from task
  where provider = :provider and state = :state and due_at <= :soon
    and operation in (select value from json_each(:operations))
    and id not in (select value from json_each(:held))
  order by due_at, id limit :limit

-- name: postpone
-- Claiming sets the next look.
update task set due_at = :due_at where id = :id and state = :state

-- name: settle
-- Write a task back, if it is still as it was.
update task set state = :state, due_at = :due_at, generation = :generation, ref = :ref, spent = :spent,
    remote_id = :remote_id, attempts = :attempts, throttles = :throttles, doubts = :doubts, looks = :looks, failures = :failures,
    refreshes = :refreshes, adopted = :adopted, sent_boot = :sent_boot, sent_seconds = :sent_seconds,
    submitted_at = :submitted_at, since = :since, finished_at = :finished_at,
    reason = :reason, code = :code, message = :message, evidence = :evidence
  where id = :id and state = :was and generation = :was_generation

-- name: rest_gone
-- What is to be bought again but has left the manifest rests, until its draft is seen again.
update task set due_at = null where id = :id and state = 'queued'
  and exists (select 1 from draft where task_id = :id and position is null)

-- name: put_output
-- A link, or a fresh link for an output that is known; a file that is saved stays saved.
insert into output (task_id, number, url) values (:task_id, :number, :url)
  on conflict (task_id, number) do update set url = excluded.url

-- name: record_file
-- What a file will be, on disk before its name exists.
update output set file = :file, bytes = :bytes, sha256 = :sha256, media_type = :media_type
  where task_id = :task_id and number = :number

-- name: outputs
-- A task's outputs in order.
select number, url, file, bytes, sha256, media_type from output where task_id = :task_id order by number

-- name: drop_outputs
-- A new generation, or another id, has no outputs yet.
delete from output where task_id = :task_id

-- name: next_due
-- When a stage has work again.
select min(due_at) from task where provider = :provider and state = :state and due_at is not null

-- name: next_due_group
-- When a stage that cares for some operations has work again.
select min(due_at) from task where provider = :provider and state = :state and due_at is not null
  and operation in (select value from json_each(:operations))

-- name: prospect
-- When the oldest look is due, when the one is that makes a few, and whether anything could be bought now.
select (select min(due_at) from task where provider = :provider and state = :state and due_at is not null
      and operation in (select value from json_each(:operations))) as oldest,
    (select due_at from task where provider = :provider and state = :state and due_at is not null
      and operation in (select value from json_each(:operations)) order by due_at limit 1 offset :few - 1) as last,
    exists (select 1 from task where provider = :provider and state = 'queued' and due_at <= :now) as queued

-- name: busy
-- Whether anything of a provider is on the wire, or still to be done without a person; what could be bought comes last,
-- since there may be a million of it that waits.
select case
  when exists (select 1 from task where provider = :provider and state = 'submitting') then 1
  when exists (select 1 from task where provider = :provider and due_at is not null
    and state <> 'queued' and state in (select value from json_each(:states))) then 1
  else exists (select 1 from task where provider = :provider and due_at is not null
    and state = 'queued' and state in (select value from json_each(:states))
    -- not what waits for room in the window
    and slots <= :room
    -- not what waits for a twin in doubt that rests until the next run
    and not (fingerprint <> '' and exists (
      select 1 from task as twin where twin.fingerprint = task.fingerprint and twin.fingerprint <> ''
        and twin.state = 'in_doubt' and twin.due_at is null))) end

-- name: in_state
-- Every task of a state that few tasks are in.
select task.*, draft.request, draft.name from task indexed by task_state join draft on draft.task_id = task.id
  where state = :state order by id

-- name: late
-- What a provider called failed, or was still at work on when nobody had patience any more, and may have made after all:
-- of the latest of them, those that were bought since then. What a person gave up stays so, and what content checks refused.
select task.*, '' as request, '' as name from task
  where id in (select id from task where state = :state and provider = :provider and due_at is null order by id desc limit :near)
    and remote_id is not null and submitted_at >= :since
    and case state when 'stranded' then reason = 'stuck' else coalesce(reason, '') not in ('abandoned', 'moderation') end
    and operation in (select value from json_each(:operations))
  order by id desc limit :limit

-- name: ever_sent
-- Every task that a request was ever sent for.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where provider = :provider and submitted_at is not null order by id

-- name: by_key
-- Tasks whose key, which is hexadecimal, begins so.
select task.*, draft.request, draft.name from task join draft on draft.task_id = task.id
  where key >= :key and key < :key || 'g' order by id limit 3

-- name: providers
-- Providers with tasks that a run has work with.
select distinct provider from tally where count > 0 and (state in ('submitting', 'in_doubt', 'running', 'ready')
  or (state = 'queued' and not gone) or (:again and state in ('failed', 'stranded', 'done')))

-- name: lost_at
-- Providers with tasks that have nothing to show.
select distinct provider from tally where count > 0 and state in ('failed', 'stranded')

-- name: files
-- Every file of every finished task, with what the manifest calls it now.
select task.id, key, name, number, file, (select count(*) from output as every where every.task_id = task.id)
  from task join draft on draft.task_id = task.id join output on output.task_id = task.id
  where state = 'done' and file is not null order by task.id, number

-- name: put_name
-- A file has been given another name.
update output set file = :file where task_id = :task_id and number = :number

-- name: draft_of
-- What a task was made from.
select key, state, provider, operation, model, position, repeat, vars, request, name
  from task join draft on draft.task_id = task.id where key = :key

-- name: counts
-- How many tasks are in each state.
select state, sum(count) from tally group by state having sum(count) > 0

-- name: counts_by_provider
-- The same for each provider, without unbought tasks that left the manifest.
select provider, state, count from tally where not gone and count > 0

-- name: gone
-- Unbought tasks that left the manifest.
select coalesce(sum(count), 0) from tally where gone

-- name: slots_taken
-- How much of the account's window this job's tasks take.
select coalesce(sum(slots), 0) from task where provider = :provider and state in ('submitting', 'in_doubt', 'running')

-- name: put_former
-- An id that a task let go stays claimed, of an earlier purchase or given by mistake: no look-up, its own or a twin's, may take it for a lost one.
insert or ignore into former (provider, remote_id) values (:provider, :remote_id)

-- name: claimed
-- Which remote ids belong to a task already, or did before it was bought anew.
select remote_id from task where provider = :provider and remote_id in (select value from json_each(:remote_ids))
  union all
  select remote_id from former where provider = :provider and remote_id in (select value from json_each(:remote_ids))

-- name: rivals
-- Whether another request that was sent has the same fingerprint.
select exists (select 1 from task join draft on draft.task_id = task.id
  where fingerprint = :fingerprint and fingerprint <> '' and draft.request <> :request and submitted_at is not null)

-- name: twins_sent
-- When the twins of a task were sent whose ids did not come from their own answers, done or not (reliability.md R4).
select sent_boot, sent_seconds from task
  where fingerprint = :fingerprint and fingerprint <> ''
    and sent_boot is not null and (state in ('submitting', 'in_doubt') or adopted = 1)

-- name: twin_submitting
-- Whether a twin of this fingerprint is on the wire right now.
select exists (select 1 from task where fingerprint = :fingerprint and fingerprint <> '' and state = 'submitting')

-- name: is_running
-- Whether a task of this model is being made, whose answers will show how the provider gives requests back.
select exists (select 1 from task where state = 'running' and provider = :provider and model = :model)

-- name: put_echo
-- One field came back, verbatim or not; once not is not.
insert into echo (provider, model, field, verbatim) values (:provider, :model, :field, :verbatim)
  on conflict (provider, model, field) do update set verbatim = min(verbatim, excluded.verbatim)

-- name: echoes
-- What is known of a model's echo.
select field, verbatim from echo where provider = :provider and model = :model

-- name: results
-- One line a task, in manifest order; those that left the manifest come last.
select task.*, draft.position, draft.repeat, draft.vars, draft.request, draft.name, draft.queued_at,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id order by number)) as outputs
  from draft join task on task.id = draft.task_id
  order by draft.position is null, draft.position, task.id

-- name: left
-- How many bought tasks are no longer in the manifest.
select count(*) from draft join task on task.id = draft.task_id where draft.position is null and task.state <> 'queued'

-- name: given_up
-- How many failed tasks are no longer in the manifest.
select count(*) from draft join task on task.id = draft.task_id where draft.position is null and task.state = 'failed'

-- name: newest
-- The same for the newest tasks alone, as many as are wanted.
select task.*, draft.position, draft.repeat, draft.vars, draft.request, draft.name, draft.queued_at,
    (select json_group_array(json_object('number', number, 'file', file, 'bytes', bytes, 'sha256', sha256, 'media_type', media_type))
       from (select * from output where output.task_id = task.id order by number)) as outputs
  from (select id as newest from task order by coalesce(finished_at, submitted_at, 0) desc, id limit :most)
    join task on task.id = newest join draft on draft.task_id = task.id
  order by draft.position is null, draft.position, task.id

-- name: latest
-- The files that came last.
select task.key, output.file, output.media_type, task.finished_at
  from task indexed by task_state join output on output.task_id = task.id
  where state = 'done' and file is not null order by finished_at desc, task.id desc, number limit :most

-- name: oldest
-- The longest wait of what is paid and not here yet.
select min(submitted_at) from task where state in ('running', 'ready')

-- name: oldest_ready
-- Since when the oldest result waits to be downloaded; its links will expire.
select min(finished_at) from task where state = 'ready'

-- name: faults
-- Why tasks failed, grouped; how many of them cost something, how much, and how many nobody knows the price of.
-- What failed and has left the manifest was given up by whoever changed it, and is no fault any more.
select state, coalesce(reason, ''), min(coalesce(message, '')), count(*), sum(spent > 0), sum(spent),
    sum(remote_id is not null and cost is null)
  from (select * from task indexed by task_state where state in ('failed', 'stranded', 'held')
      and not (state = 'failed' and exists (select 1 from draft where task_id = task.id and position is null))
    union all select * from task indexed by task_faults where state = 'done' and reason is not null)
  group by state, reason order by count(*) desc limit 20

-- name: examples
-- What a few tasks of such a group are called.
select draft.name
  from (select id from task indexed by task_faults where state = :state and reason = :reason
    union all select id from task indexed by task_state where state = :state and reason is null and :reason is null) as lost
  join draft on draft.task_id = lost.id
  where not (:state = 'failed' and position is null) limit :most

-- name: outlay
-- What the job has cost, and whether anything was sent that has no price.
select spent, unpriced from job where id = 1

-- name: keys
-- Every task's key and state.
select key, state from task

-- name: partial
-- Finished tasks with fewer outputs than were ordered.
select count(*) from task where state = 'done' and reason is not null
