// Texts of the live page that the gallery does not have.
Object.assign(WORDS.en, {
  live: "live", lost: "no connection; trying again …", no_jobs: "No job here yet; one that begins will show up.",
  to_submit: "to submit", running_now: "running", resting: "at rest", changed: "last change {0}", eta: "{0} to go",
  eta_unknown: "time to go unknown", rate: "{0}: {1}/s of {2}/s", rate_alone: "{0}: {1}/s", cost_of: "cost {0} of {1} {2}",
  cost_only: "cost {0} {1}", gallery: "Gallery", newest_files: "Newest", just_now: "just now", ago: "{0} ago", trouble: "cannot be read: {0}",
  more_jobs: "And {0} jobs that changed longer ago.",
});
Object.assign(WORDS.zh, {
  live: "实时", lost: "连接中断，正在重试…", no_jobs: "这里还没有作业；开始后会自动出现。",
  to_submit: "待提交", running_now: "运行中", resting: "未运行", changed: "最近变化：{0}", eta: "还需 {0}",
  eta_unknown: "剩余时间未知", rate: "{0}：{1}/秒，上限 {2}/秒", rate_alone: "{0}：{1}/秒", cost_of: "费用 {0} / {1} {2}",
  cost_only: "费用 {0} {1}", gallery: "图库", newest_files: "最新", just_now: "刚刚", ago: "{0} 前", trouble: "无法读取：{0}",
  more_jobs: "另有 {0} 个更早变化的作业。",
});
